"""What is written of an input as a whole: a montage, a mask volume, a DICOM Segmentation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsms_rt.atomic import atomic_file, unwritable
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.privacy import names_shown
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import count_text
from lsms_rt.writing.montage import save_montage

RESULTS, MONTAGE, SEG, NIFTI = "results.json", "montage.png", "segmentation.dcm", "mask.nii.gz"


@dataclass(frozen=True)
class Request:
    """What is asked of every slice, and what is written into ``output`` (None: nothing).

    ``window`` (level, width) in HU is what an 8-bit picture shows.  ``seg``: a DICOM Segmentation of each input where
    something was found, with ``empty_seg`` of the others too; ``nifti``: a mask volume of each.
    """

    text: str
    output: Path | None = None
    series: str | None = None
    window: tuple[float, float] | None = None
    batch: int | None = None
    seg: bool = False
    empty_seg: bool = False
    nifti: bool = False

    @property
    def wants_seg(self) -> bool:
        return self.seg or self.empty_seg


def check_products(request: Request) -> None:
    """Raise for what cannot be written, before a series is computed for it."""
    if request.output is None and (request.wants_seg or request.nifti):
        raise InputError("--seg and --nifti write files; say where with -o")
    for wanted, module, extra in ((request.wants_seg, "highdicom", "seg"), (request.nifti, "nibabel", "nifti")):
        if wanted and importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f"--{extra} needs {module}; pip install 'lsms-rt[{extra}]'")


def forget_products(folder: Path) -> None:
    """Take away what an earlier run said as a whole: slices may have changed, or come, since."""
    try:
        for name in (RESULTS, MONTAGE, SEG, NIFTI):
            for path in (folder / name, *folder.glob(f"input[0-9]*_{name}")):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error) from error


def write_products(answers: Sequence[Answer], request: Request, folder: Path, start: str, engine: str) -> list[str]:
    """Write all that is asked for into ``folder``, names beginning with ``start``; returns why something was not.

    What one of them cannot hold (a mask volume a gap, a Segmentation of a PNG), the others may.
    """
    failed = []
    for name, write in _writers(answers, request, engine):
        try:
            write(folder / f"{start}{name}")
        except LsmsError as error:
            failed.append(f"{name}: {error}")
    return failed


def _writers(
    answers: Sequence[Answer], request: Request, engine: str
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    found = [answer for answer in answers if answer.found]
    if len(answers) > 1 and found:
        yield MONTAGE, lambda path: _montage(path, found, len(answers))
    if request.nifti:
        from lsms_rt.writing.nifti import write_nifti

        yield NIFTI, lambda path: write_nifti(answers, path)
    if request.wants_seg:
        from lsms_rt.writing.seg import write_seg

        yield (
            SEG,
            lambda path: write_seg(
                answers, path, engine_digest=engine, include_text=names_shown(), write_empty=request.empty_seg
            ),
        )


def _montage(path: Path, found: Sequence[Answer], slices: int) -> None:
    with atomic_file(path) as part:
        save_montage(part, found, f"{count_text(len(found), slices)}; not for diagnosis")
