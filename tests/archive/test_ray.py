"""An archive with the real Ray, in an environment of its own: ``tests/services/ray.sh`` makes it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.datasets.phantom.dicom import write_slice

ROOT = Path(__file__).parents[2]
PYTHON = (ROOT / os.environ.get("LSMS_RT_TEST_RAY", ".venv-ray") / "bin" / "python").absolute()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="Ray is not installed; tests/services/ray.sh installs it"),
]
TEXT = "the lesion in the liver"
SERIES, SLICES = 6, 2
DAMAGED, ALWAYS, ONCE = 2, 3, 4
READ = "import json, sys, pyarrow.parquet as p; print(json.dumps(p.read_table(sys.argv[1]).to_pylist()))"
WRITE = (
    "import json, sys, pyarrow as a, pyarrow.parquet as p; p.write_table(a.table(json.loads(sys.argv[2])), sys.argv[1])"
)


def environment(**more: str) -> dict[str, str]:
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")]), "OMP_NUM_THREADS": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | own | more


def command(source: Path, out: Path, *more: str) -> list[str]:
    run = [str(PYTHON), "-c", "import archive_faults; archive_faults.main()", "archive", str(source), "demo"]
    return [*run, "--text", TEXT, "-o", str(out), "--threads", "1", *more]


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([PYTHON, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, phantom_case: Any) -> Path:
    """A manifest of six series, of which the second is damaged, in an order of its own."""
    root = tmp_path_factory.mktemp("archive")
    for number in range(1, SERIES + 1):
        folder = root / f"s{SERIES - number}"
        folder.mkdir()
        for index in range(SLICES):
            write_slice(folder / f"{index}.dcm", phantom_case, index, f"case{number}")
            if number == DAMAGED:
                (folder / f"{index}.dcm").write_bytes(b"")
    columns = {"input": [f"s{SERIES - number}" for number in range(1, SERIES + 1)], "row": list(range(SERIES))}
    python(WRITE, str(root / "m.parquet"), json.dumps(columns))
    return root / "m.parquet"


@dataclass
class Done:
    kept: dict[str, int]
    code: int
    out: str
    err: str
    rows: list[dict[str, Any]]
    listening: dict[str, list[str]]


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="lsms-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def done(archive: Path, sockets: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run that is killed; then one in which a series kills its process always, and another the first time."""
    root = tmp_path_factory.mktemp("done")
    ended, listening = root / "out" / "state" / "ended", root / "listening"
    driver = subprocess.Popen(
        command(archive, root / "out", "--actors", "1"),
        env=environment(SLOW="2", TMPDIR="/tmp"),
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 200
        while not (ended.exists() and ends(ended)):
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.1)
    finally:
        driver.kill()
        driver.wait()
    kept = ends(ended)
    given = environment(ALWAYS=str(ALWAYS), ONCE=str(ONCE), LISTENING=str(listening), TMPDIR=str(sockets))
    again = subprocess.run(
        command(archive, root / "out", "--actors", "2"), env=given, capture_output=True, text=True, timeout=300
    )
    rows = json.loads(python(READ, str(root / "out" / "measurements.parquet")))
    assert kept.items() <= ends(ended).items()
    return Done(kept, again.returncode, again.stdout, again.stderr, rows, json.loads(listening.read_text()))


def ends(folder: Path) -> dict[str, int]:
    """When each series ended, by its number."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name.isdecimal()}


def test_every_series_has_a_row(done: Done) -> None:
    assert done.code == 5, done.err
    statuses = {row["input"]: (row["status"], row["kind"]) for row in done.rows}
    complete = ("complete", None)
    bad = {DAMAGED: ("failed", "input"), ALWAYS: ("failed", "crash")}
    assert statuses == dict.fromkeys(range(1, SERIES + 1), complete) | bad
    assert "4 series complete, 0 incomplete, 2 failed" in done.out
    assert f"{len(done.kept)} series already done, skipped" in done.err
    findings = [row for row in done.rows if row["input"] == 1]
    assert [row["finding"] for row in findings] == list(range(1, len(findings) + 1))
    assert all(row["mask"].startswith("series/00000001/") and row["area_mm2"] > 0 for row in findings)


def test_ray_leaves_nothing_behind(done: Done, sockets: Path) -> None:
    assert not list(sockets.glob("lsms-*"))


def test_no_name_comes_out(done: Done, archive: Path) -> None:
    everything = done.out + done.err + json.dumps(done.rows)
    assert not any(text in everything for text in (TEXT, str(archive.parent), "case1"))


def test_ray_is_closed_to_other_machines(done: Done) -> None:
    assert done.listening["all"] and not done.listening["open"]


def test_manifests() -> None:
    """The tests that need pyarrow, too."""
    run = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-k", "manifest", str(ROOT / "tests/archive/test_rows.py")]
    ended = subprocess.run(run, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and "skipped" not in ended.stdout, ended.stdout
