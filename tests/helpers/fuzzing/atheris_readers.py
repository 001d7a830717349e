"""The readers under Atheris, which looks for inputs that reach new lines: pip install atheris (CPython up to 3.13).

    python tests/helpers/fuzzing/atheris_readers.py CORPUS_DIR -max_total_time=600

The first byte of an input chooses the suffix, the rest is the file. CORPUS_DIR is filled with the seeds if it is empty.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The folder tests/, so that it runs as a script.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SUFFIXES = (".dcm", ".zip", ".npy", ".png", ".tif", ".nii", ".nii.gz")


def target(data: bytes) -> None:
    """Raises for what the harness calls a failure."""
    from fuzzing.case import MARKER, Case
    from fuzzing.harness import judge

    if not data:
        return
    name = f"{MARKER}{SUFFIXES[data[0] % len(SUFFIXES)]}"
    verdict = judge(Case("atheris", name, {name: data[1:]}))
    if verdict.outcome not in ("ok", "typed"):
        raise RuntimeError(f"{name}: {verdict}")


def fill(folder: Path) -> None:
    """One input for each seed that is a single file."""
    from fuzzing.seeds import FORMATS, seed

    folder.mkdir(parents=True, exist_ok=True)
    for form in FORMATS if not any(folder.iterdir()) else ():
        case = seed(form)
        if len(case.files) == 1:
            kind = next((n for n, suffix in enumerate(SUFFIXES) if case.entry.endswith(suffix)), 0)
            (folder / form).write_bytes(bytes([kind]) + case.data())


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("Atheris is missing; pip install atheris")
    with atheris.instrument_imports(include=["lsms_rt", "pydicom"]):
        import lsms_rt.reading.dicom
        import lsms_rt.reading.load  # noqa: F401 - imported here, so that their lines are counted
    folders = [Path(a) for a in sys.argv[1:] if not a.startswith("-")]
    for folder in folders[:1]:
        fill(folder)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
