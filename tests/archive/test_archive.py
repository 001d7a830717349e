"""An archive without Ray: what is recorded, resumed and tried again, whatever dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_segmenter import write_arrays

from lsms_rt.archive import archive as archive_module
from lsms_rt.archive import worker as worker_module
from lsms_rt.archive.archive import Archived, run_archive
from lsms_rt.archive.cluster import Actors, _counted, cluster
from lsms_rt.archive.measurements import COLUMNS, Counts, _rows
from lsms_rt.archive.state import State
from lsms_rt.archive.worker import SeriesWorker, Settings
from lsms_rt.cli.main import main
from lsms_rt.data import demo_engine
from lsms_rt.errors import EngineError, InputError, MachineError, SentenceNotUnderstoodError
from lsms_rt.runs import journal
from lsms_rt.runs.request import Request

pytestmark = pytest.mark.usefixtures("engines_are_fake")
TEXT = "the lesion in the liver"
OPTIONS: dict[str, Any] = {"digest": None, "trust_host_code": False, "on_unknown": "refuse"}


class DiesError(BaseException):
    """The process of an actor dies."""


class Ray:
    """Calls workers as Ray does: one that died is started again, with the same row."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.paths: list[Any] = []
        self.dies: Callable[[int], bool] = lambda number: False
        self.stops: Callable[[int], bool] = lambda number: False

    def processed(self, items: list[dict[str, Any]], settings: Settings, actors: Actors) -> Iterator[dict[str, Any]]:
        worker = SeriesWorker(settings)
        for item in items:
            self.paths.append(item["path"])
            while True:
                try:
                    reply = worker(item)
                    break
                except DiesError:
                    worker = SeriesWorker(settings)
            yield reply


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Ray:
    fake, run = Ray(), worker_module.run

    @contextmanager
    def here(address: str | None, actors: Actors) -> Iterator[Actors]:
        yield replace(actors, count=1)

    def counted(segmenter: Any, jobs: Any, request: Request) -> Any:
        assert request.output is not None
        number = int(request.output.name)
        fake.asked.append(number)
        if fake.stops(number):
            raise KeyboardInterrupt
        report = run(segmenter, jobs, request)
        # Results are there, and not known to be.
        if fake.dies(number):
            raise DiesError
        return report

    monkeypatch.setattr(archive_module, "cluster", here)
    monkeypatch.setattr(archive_module, "processed", fake.processed)
    monkeypatch.setattr(worker_module, "run", counted)
    monkeypatch.setattr(archive_module, "write_measurements", write_rows)
    return fake


def write_rows(output: Path, rows: Any, ended: Any, sentences: int) -> Counts:
    """Write the rows as JSON, for tests without pyarrow."""
    found = [row for n in range(1, len(rows) + 1) for row in _rows(output, n, ended[n], sentences)]
    (output / "rows.json").write_text(json.dumps(found))
    return Counts(failed=sum(row["status"] == "failed" for row in found))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four series of a slice each, of which the second cannot be read."""
    for n, path in enumerate(write_arrays(tmp_path / "in", 4), 1):
        (tmp_path / "in" / f"s{n}").mkdir()
        path.rename(tmp_path / "in" / f"s{n}.nii")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def _digests_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ROUNDS", 1)


@pytest.fixture(autouse=True)
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the arrays, though they are named like volumes, which an archive holds."""
    from lsms_rt.reading.pictures import read_npy
    from lsms_rt.runs import run as run_module

    def load(path: Path, *, stated: Any, **_: Any) -> Any:
        if path.name == "s2.nii":
            raise InputError("the file: empty; copy it again")
        return [read_npy(path, "the file", stated)]

    monkeypatch.setattr(run_module, "load_slices", load)


def do(
    source: Path, out: Path, *texts: str, retry: bool = False, time_limit: int | None = None, **options: Any
) -> Archived:
    settings = Settings(
        engine=demo_engine(),
        options=OPTIONS | options,
        texts=texts or (TEXT,),
        request=Request(output=out),
        names=False,
        time_limit=time_limit,
    )
    actors = Actors(count=None, threads=1)
    return run_archive(source, settings, actors, address=None, retry=retry, progress=lambda *_: None)


def statuses(out: Path) -> list[tuple[int, str, str]]:
    rows = json.loads((out / "rows.json").read_text())
    return [(row["input"], row["status"], row.get("kind", "")) for row in rows]


COMPLETE = [(1, "complete", ""), (2, "failed", "input"), (3, "complete", ""), (4, "complete", "")]


def test_every_series_has_a_row(source: Path, tmp_path: Path, ray: Ray) -> None:
    done = do(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == COMPLETE and done.counts.failed == 1 and done.resumed == 0
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert (tmp_path / "out" / rows[0]["mask"]).is_file() and "empty" in rows[1]["error"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_every_sentence_of_a_failed_series_has_a_row(source: Path, tmp_path: Path, ray: Ray) -> None:
    do(source, tmp_path / "out", TEXT, "the cyst in the liver")
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["sentence"] for row in rows if row["input"] == 2] == [1, 2]


def test_what_has_ended_is_not_done_again(source: Path, tmp_path: Path, ray: Ray) -> None:
    do(source, tmp_path / "out")
    ray.asked.clear()
    assert do(source, tmp_path / "out").resumed == 4
    assert ray.asked == []
    # An input that cannot be used, only if that is asked for.
    assert do(source, tmp_path / "out", retry=True).resumed == 3
    assert ray.asked == [2]


def test_a_death_costs_a_try(source: Path, tmp_path: Path, ray: Ray) -> None:
    ray.dies = lambda number: number == 3 and ray.asked.count(3) == 1
    do(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == COMPLETE and ray.asked == [1, 2, 3, 3, 4]


def test_a_series_that_kills_its_process_is_not_tried_for_ever(source: Path, tmp_path: Path, ray: Ray) -> None:
    ray.dies = lambda number: number == 3
    do(source, tmp_path / "out")
    crashed = [*COMPLETE[:2], (3, "failed", "crash"), COMPLETE[3]]
    assert statuses(tmp_path / "out") == crashed and ray.asked == [1, 2, 3, 3, 4]
    ray.asked.clear()
    do(source, tmp_path / "out")
    assert ray.asked == []
    ray.dies = lambda number: False
    do(source, tmp_path / "out", retry=True)
    assert statuses(tmp_path / "out") == COMPLETE and ray.asked == [2, 3]


def test_a_death_of_everything_is_counted_too(source: Path, tmp_path: Path, ray: Ray) -> None:
    """A driver that was killed leaves a series begun; if that was of it, it must not be so for ever."""
    out = tmp_path / "out"
    do(source, out)
    state = State(out)
    for number, tries in ((3, 1), (4, 2)):
        state.reopen(number)
        for _ in range(tries):
            state.begin(number)
    ray.asked.clear()
    do(source, out)
    assert ray.asked == [3] and statuses(out)[2:] == [(3, "complete", ""), (4, "failed", "crash")]


def test_a_stop_is_no_death(source: Path, tmp_path: Path, ray: Ray) -> None:
    ray.stops = lambda number: number == 3
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            do(source, tmp_path / "out")
    ray.stops = lambda number: False
    assert do(source, tmp_path / "out").resumed == 2
    assert statuses(tmp_path / "out") == COMPLETE


def test_processes_that_all_die_end_the_run(source: Path, tmp_path: Path, ray: Ray) -> None:
    ray.dies = lambda number: True
    (source / "s2.nii").unlink()
    write_arrays(source, 1)[0].rename(source / "s5.nii")
    with pytest.raises(MachineError, match="every process dies"):
        do(source, tmp_path / "out")
    ray.dies = lambda number: False
    assert do(source, tmp_path / "out", retry=True).resumed == 0
    assert {status for _, status, _ in statuses(tmp_path / "out")} == {"complete"}


def test_series_that_always_kill_do_not_keep_others_from_their_turn(
    source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are left may be such; the table must come nevertheless."""
    monkeypatch.setattr(archive_module, "MAX_CRASHES", 2)
    ray.dies = lambda number: number in (1, 2)
    with pytest.raises(MachineError, match="every process dies"):
        do(without(source, "s2.nii"), tmp_path / "out")
    do(source, tmp_path / "out")
    assert {row[0]: row[2] for row in statuses(tmp_path / "out")} == {1: "crash", 2: "crash", 3: ""}


def without(source: Path, name: str) -> Path:
    (source / name).unlink()
    return source


def test_results_that_are_gone_are_made_again(source: Path, tmp_path: Path, ray: Ray) -> None:
    do(source, tmp_path / "out")
    (tmp_path / "out" / "series" / "00000003" / "results.json").unlink()
    with pytest.raises(InputError, match=r"series 3: .* run the command again"):
        do(source, tmp_path / "out")
    do(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == COMPLETE and ray.asked == [1, 2, 3, 4, 3]


@pytest.mark.parametrize("record", ["", "[]", "{}"])
def test_a_damaged_state_is_told(source: Path, tmp_path: Path, ray: Ray, record: str) -> None:
    do(source, tmp_path / "out")
    (tmp_path / "out" / "state" / "ended" / "00000003").write_text(record)
    with pytest.raises(InputError, match="state of a series cannot be read"):
        do(source, tmp_path / "out")


def test_that_a_series_is_begun_outlives_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file's content and its name are asked to be on the disk."""
    asked: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (asked.append(os.readlink(f"/proc/self/fd/{number}")), sync(number))
    )
    state = State(tmp_path)
    state.create()
    state.begin(7)
    assert [Path(path).name for path in asked] == ["00000007", "begun"]


def test_a_series_that_never_ends_ends_its_process(
    source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the signal would: here, what is asked of the system."""
    alarms: list[int] = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    do(source, tmp_path / "out", time_limit=60)
    assert alarms == [60, 0] * 4


def test_what_a_killed_run_was_writing_goes(source: Path, tmp_path: Path, ray: Ray) -> None:
    """The table may be large, and shows patients."""
    (tmp_path / "out").mkdir()
    for name in (".0123456789abcdef.part.json", ".0123456789abcdef.part.parquet"):
        (tmp_path / "out" / name).write_text("{")
    do(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part*")) and statuses(tmp_path / "out") == COMPLETE


def test_a_name_need_not_be_utf_8(source: Path, tmp_path: Path, ray: Ray) -> None:
    """Arrow's texts are: a path goes to the actors as bytes."""
    (source / "s4.nii").rename(source / os.fsdecode(b"s4\xfc.nii"))
    do(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == COMPLETE
    assert all(isinstance(path, bytes) for path in ray.paths)


@pytest.mark.parametrize(
    "error, kind", [(MachineError("m"), "machine"), (EngineError("e"), "engine"), (KeyError(), "unexpected")]
)
def test_what_is_no_fault_of_a_series_is_tried_by_the_next_run(
    source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def fails(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "run", fails)
        do(source, tmp_path / "out")
    assert [row[2] for row in statuses(tmp_path / "out")] == [kind] * 4
    assert do(source, tmp_path / "out").resumed == 0
    assert statuses(tmp_path / "out") == COMPLETE


def test_an_engine_that_cannot_be_opened_ends_the_run(
    source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise EngineError("built for another GPU")

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "Segmenter", fails)
        for _ in range(3):
            with pytest.raises(EngineError, match="another GPU"):
                do(source, tmp_path / "out")
    do(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == COMPLETE


def test_a_full_disk_ends_the_run(source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise MachineError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(State, "end", full)
        with pytest.raises(MachineError, match="no space"):
            do(source, tmp_path / "out")
    assert do(source, tmp_path / "out").resumed == 0
    assert statuses(tmp_path / "out") == COMPLETE


def test_another_version_on_a_machine_ends_the_run(
    source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "__version__", "0.0.1")
    with pytest.raises(MachineError, match=r"has lsms-rt 0\.0\.1, not "):
        do(source, tmp_path / "out")


def test_an_incomplete_series_says_so(source: Path, tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    run = worker_module.run

    def incomplete(*arguments: Any) -> Any:
        report = run(*arguments)
        report.not_written.append("mask.nii.gz: no")
        folder = arguments[2].output
        (folder / "results.json").write_text(report.to_json())
        return report

    monkeypatch.setattr(worker_module, "run", incomplete)
    do(source, tmp_path / "out")
    row = json.loads((tmp_path / "out" / "rows.json").read_text())[0]
    assert (row["status"], row["error"], row["finding"]) == ("incomplete", "mask.nii.gz: no", 1)


def test_series_of_another_archive_are_not_mixed(source: Path, tmp_path: Path, ray: Ray) -> None:
    do(source, tmp_path / "out")
    for change in ({"texts": ("the cyst in the liver",)}, {"source": source / "more"}):
        (source / "more").mkdir(exist_ok=True)
        write_arrays(source / "more", 1)[0].rename(source / "more" / "s1.nii")
        with pytest.raises(InputError, match="results of other series"):
            do(change.get("source", source), tmp_path / "out", *change.get("texts", ()))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        do(source, tmp_path / "mine")


def test_one_run_at_a_time_has_the_folder(source: Path, tmp_path: Path, ray: Ray) -> None:
    def again(number: int) -> bool:
        with pytest.raises(InputError, match="another run"):
            do(source, tmp_path / "out")
        return False

    ray.stops = again
    do(source, tmp_path / "out")


def test_a_sentence_is_refused_before_anything_is_done(source: Path, tmp_path: Path, ray: Ray) -> None:
    with pytest.raises(SentenceNotUnderstoodError):
        do(source, tmp_path / "out", "no lesion in the liver")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="lies in"):
        do(source, source / "out")


def test_a_cluster_without_authentication_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with (
        pytest.raises(InputError, match="RAY_AUTH_MODE=token"),
        cluster("127.0.0.1:1", Actors(count=1, threads=1)),
    ):
        pass


def test_a_temporary_folder_with_a_long_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/" + 21 * "x")
    with (
        pytest.raises(MachineError, match="22 bytes.*set TMPDIR"),
        cluster(None, Actors(count=1, threads=1)),
    ):
        pass


@pytest.mark.parametrize(
    "actors, resources, count",
    [
        (Actors(count=None, threads=4), {"CPU": 10}, 2),
        (Actors(count=2, threads=4, gpus=1), {"CPU": 64, "GPU": 8}, 2),
        (Actors(count=None, threads=4, gpus=1), {"CPU": 64, "GPU": 8}, 8),
        (Actors(count=None, threads=2, gpus=1 / 3), {"CPU": 64, "GPU": 2}, 6),
        (Actors(count=None, threads=4, gpus=0.25), {"CPU": 64, "GPU": 8}, 16),
    ],
)
def test_as_many_actors_as_there_is_room_for(actors: Actors, resources: dict[str, float], count: int) -> None:
    assert _counted(actors, resources).count == count


@pytest.mark.parametrize(
    "actors", [Actors(count=3, threads=4), Actors(count=None, threads=11), Actors(count=1, threads=1, gpus=1)]
)
def test_actors_without_room_are_refused(actors: Actors) -> None:
    """Ray would wait for ever."""
    with pytest.raises(MachineError, match="room for"):
        _counted(actors, {"CPU": 10})


def test_the_page_names_every_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "archive.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| `") and line.split("`")[1] in COLUMNS] == [
        f"| `{name}` | {what} |" for name, (_, what) in COLUMNS.items()
    ]


def test_a_missing_library_is_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsms_rt.cli.archive.LIBRARIES", ("ray_that_is_not_there",))
    assert main(["archive", str(source), "demo", "--text", TEXT, "-o", str(tmp_path / "out")]) == 3
    assert "pip install 'lsms-rt[ray]'" in capsys.readouterr().err
