"""An archive with the real Ray, in an environment of its own: ``tests/services/ray.sh`` makes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.datasets.phantom.dicom import write_slice

ROOT = Path(__file__).parents[2]
PYTHON = (ROOT / os.environ.get("LSMS_RT_TEST_RAY", ".venv-ray") / "bin" / "python").absolute()
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="Ray is not installed; tests/services/ray.sh installs it")
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
    code: int
    out: str
    err: str
    rows: list[dict[str, Any]]
    listening: dict[str, list[str]]


@pytest.fixture(scope="module")
def done(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run in which one series kills its process always, and one the first time."""
    root = tmp_path_factory.mktemp("done")
    given = environment(ALWAYS=str(ALWAYS), ONCE=str(ONCE), LISTENING=str(root / "listening"), TMPDIR=str(short(root)))
    ended = subprocess.run(
        command(archive, root / "out", "--actors", "2"), env=given, capture_output=True, text=True, timeout=300
    )
    rows = json.loads(python(READ, str(root / "out" / "measurements.parquet")))
    assert not list(short(root).glob("lsms-*"))
    return Done(ended.returncode, ended.stdout, ended.stderr, rows, json.loads((root / "listening").read_text()))


def short(root: Path) -> Path:
    """Return a folder for Ray's sockets, whose paths must be short."""
    place = Path(f"/tmp/lsms-{root.name[-3:]}-{os.getpid()}")
    place.mkdir(exist_ok=True)
    return place


def test_every_series_has_a_row(done: Done) -> None:
    assert done.code == 5, done.err
    statuses = {row["input"]: (row["status"], row["kind"]) for row in done.rows}
    complete = ("complete", None)
    bad = {DAMAGED: ("failed", "input"), ALWAYS: ("failed", "crash")}
    assert statuses == dict.fromkeys(range(1, SERIES + 1), complete) | bad
    assert "4 series complete, 0 incomplete, 2 failed" in done.out
    findings = [row for row in done.rows if row["input"] == 1]
    assert [row["finding"] for row in findings] == list(range(1, len(findings) + 1))
    assert all(row["mask"].startswith("series/00000001/") and row["area_mm2"] > 0 for row in findings)


def test_no_name_comes_out(done: Done, archive: Path) -> None:
    everything = done.out + done.err + json.dumps(done.rows)
    assert not any(text in everything for text in (TEXT, str(archive.parent), "case1"))


def test_ray_is_closed_to_other_machines(done: Done) -> None:
    assert done.listening["all"] and not done.listening["open"]


def test_a_temporary_folder_with_a_long_path_is_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / ("x" * 40)).mkdir()
    given = environment(TMPDIR=str(tmp_path / ("x" * 40)))
    ended = subprocess.run(command(archive, tmp_path / "out"), env=given, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3 and "set a shorter one" in ended.stderr


def test_manifests() -> None:
    """The tests that need pyarrow, too."""
    run = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-k", "manifest", str(ROOT / "tests/archive/test_rows.py")]
    ended = subprocess.run(run, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and "skipped" not in ended.stdout, ended.stdout


def wait(driver: subprocess.Popen[Any], until: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not until():
        assert driver.poll() is None and time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_driver_resumes(archive: Path, tmp_path: Path) -> None:
    """Killed in the midst of a series, as all its processes are then; and an actor is killed from outside."""
    out, ended = tmp_path / "out", tmp_path / "out" / "state" / "ended"
    given = environment(SLOW="1", TMPDIR=str(short(tmp_path)))
    driver = subprocess.Popen(command(archive, out, "--actors", "1"), env=given, stderr=subprocess.DEVNULL)
    try:
        wait(driver, lambda: ended.exists() and len(list(ended.iterdir())) >= 2)
    finally:
        driver.kill()
        driver.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in ended.iterdir()}
    again = subprocess.run(
        command(archive, out, "--actors", "1"), env=given, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 5 and f"{len(kept)} series already done" in again.stderr, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in ended.iterdir() if path.name in kept} == kept
    rows = json.loads(python(READ, str(out / "measurements.parquet")))
    statuses = {row["input"]: row["status"] for row in rows}
    assert statuses == {n: "failed" if n == DAMAGED else "complete" for n in range(1, SERIES + 1)}


@pytest.mark.slow
def test_sigterm_ends_it_at_once(archive: Path, tmp_path: Path) -> None:
    begun = tmp_path / "out" / "state" / "begun"
    given = environment(SLOW="30", TMPDIR=str(short(tmp_path)))
    driver = subprocess.Popen(command(archive, tmp_path / "out", "--actors", "1"), env=given, stderr=subprocess.PIPE)
    try:
        wait(driver, lambda: begun.exists() and any(path.stat().st_size for path in begun.iterdir()))
        driver.send_signal(signal.SIGTERM)
        _, error = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130 and b"interrupted" in error
    # It was stopped, and has not died.
    assert not any(path.stat().st_size for path in begun.iterdir())
    assert not list(short(tmp_path).glob("lsms-*"))
