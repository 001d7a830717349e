"""What must never go into a study, or be deleted from one, whatever the archive, the clock and other workers do."""

from __future__ import annotations

import errno
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from worker_series import SENTENCES, uids, write_series
from worker_site import RULES, QuickLedger, Site

from lsms_rt.archive_worker import dicomweb
from lsms_rt.archive_worker import work as work_module
from lsms_rt.archive_worker.audit import Audit
from lsms_rt.archive_worker.dicomweb import Series
from lsms_rt.archive_worker.ledger import Object
from lsms_rt.errors import InputError, MachineError

POLLED = RULES.replace(", orthanc: 'http://archive.test'", "")


def reports(site: Site) -> list[tuple[str, int]]:
    """Return of each report its study and the number of its images."""
    return sorted(
        (ds.StudyInstanceUID, sum(len(row.ReferencedSOPSequence) for row in item.ReferencedSeriesSequence) - 1)
        for ds in site.archive.headers("SR")
        for item in ds.CurrentRequestedProcedureEvidenceSequence
    )


def in_study(name: str, series: str) -> dict[str, str]:
    return {"StudyInstanceUID": uids(name)[0], "SeriesInstanceUID": uids(series)[1]}


def answered(paths: list[Path]) -> httpx.Response:
    """Return an answer to WADO-RS with some files."""
    kind, body = dicomweb.joined(paths)
    return httpx.Response(200, content=body, headers={"Content-Type": kind})


def is_fetch(request: httpx.Request) -> bool:
    return request.url.path.endswith(uids("a")[1])


def test_a_series_that_is_in_two_studies_has_its_result_in_both(site: Site) -> None:
    site.archive.add(*site.series("a"), *site.series("b", 3, **in_study("b", "a")))
    site.work(POLLED)
    site.work(POLLED)
    assert reports(site) == sorted([(uids("a")[0], 2), (uids("b")[0], 3)])
    assert site.states() == {"done": 2}


def test_a_series_that_was_moved_has_its_result_where_it_is_now(site: Site) -> None:
    paths = site.series("a")
    site.archive.add(*paths)
    site.work(POLLED)
    site.archive.clear()
    for path in paths:
        ds = dcmread(path)
        ds.StudyInstanceUID = uids("b")[0]
        ds.save_as(path)
    site.archive.add(*paths)
    site.work(POLLED)
    site.work(POLLED)
    assert reports(site) == [(uids("b")[0], 2)]


@pytest.mark.parametrize("sent", ["of another study", "of another series", "one twice", "not all"])
def test_images_that_were_not_asked_for_are_not_segmented(site: Site, sent: str) -> None:
    right = site.series("a")
    site.archive.add(*right)
    wrong = {
        "of another study": write_series(site.folder / "moved", "a", 2, StudyInstanceUID=uids("b")[0]),
        "of another series": site.series("b"),
        "one twice": [right[0], right[0]],
        "not all": right[:1],
    }[sent]
    left = [1]
    site.archive.before = lambda request: answered(wrong) if is_fetch(request) and left and left.pop() else None
    site.work()
    assert site.audit.count('"put back"') == site.audit.count('"the archive sent ') == 1
    assert reports(site) == [(uids("a")[0], 2)]


def test_a_study_that_was_deleted_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    run = work_module.run

    def deleted(*arguments: Any) -> Any:
        report = run(*arguments)
        site.archive.files.clear()
        site.archive.parsed.clear()
        return report

    monkeypatch.setattr(work_module, "run", deleted)
    site.work()
    assert site.archive.files == {}
    assert site.states() == {"skipped": 1}


def test_a_name_that_was_taken_away_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    run = work_module.run

    def renamed(*arguments: Any) -> Any:
        report = run(*arguments)
        site.archive.clear()
        site.archive.add(*site.series("a", PatientName="Anonymous"))
        return report

    monkeypatch.setattr(work_module, "run", renamed)
    site.work()
    assert {str(ds.PatientName) for ds in site.archive.headers()} == {"Anonymous"}
    assert site.states() == {"done": 1}


def test_a_copy_of_a_result_in_another_study_is_not_deleted(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.work()
    (old,) = site.archive.headers("SR")
    old.StudyInstanceUID = uids("b")[0]
    site.archive.add(*site.series("a", 1, first=2))
    site.work()
    assert old.SOPInstanceUID in site.archive.files
    assert reports(site) == sorted([(uids("a")[0], 3), (uids("b")[0], 2)])
    assert len(site.archive.headers("SEG")) == 1


def test_what_an_attempt_with_other_masks_left_is_deleted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    run, before = work_module.run, []

    def differs(segmenter: Any, jobs: Any, *rest: Any) -> Any:
        # Another sentence stands for masks that differ from run to run.
        texts = jobs[0].texts if before else SENTENCES[1:]
        return run(segmenter, [replace(jobs[0], texts=texts)], *rest)

    def half(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST" or before:
            return None
        before.extend(site.archive.headers("SEG"))
        (report,) = site.archive.headers("SR")
        del site.archive.files[report.SOPInstanceUID], site.archive.parsed[report.SOPInstanceUID]
        return httpx.Response(503)

    monkeypatch.setattr(work_module, "run", differs)
    site.archive.after = half
    site.work()
    assert len(before) == 1
    assert [ds.SOPInstanceUID for ds in site.archive.headers("SEG")] != [before[0].SOPInstanceUID]
    assert len(site.archive.headers("SEG")) == len(site.archive.headers("SR")) == 1


def test_a_result_is_not_incomplete_for_want_of_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    run, failed = work_module.run, list[Any]()

    def short_of_memory(*arguments: Any) -> Any:
        report = run(*arguments)
        if not failed:
            failed.append(1)
            return replace(report, machine_error=MachineError("it needs more memory"))
        return report

    monkeypatch.setattr(work_module, "run", short_of_memory)
    site.work()
    assert site.audit.count('"event": "put back"') == 1
    assert site.states() == {"done": 1}


def test_a_clock_that_is_set_back_holds_nothing_up(site: Site) -> None:
    ledger = site.ledger
    ledger.see(Series(study="1", uid="2", count=1), due=time.time() + 3000)
    assert ledger.take() is None
    ledger.see(Series(study="1", uid="3", count=1), due=time.time() + 86400)
    row = ledger.take()
    assert row is not None
    assert row.series.uid == "3"


def test_a_state_folder_is_of_one_archive(site: Site) -> None:
    site.work()
    with pytest.raises(InputError, match="another archive"):
        site.worker(RULES.replace("archive.test/dicom-web", "other.test/dicom-web"))


@pytest.mark.parametrize(
    "change",
    [("description: liver", "description: head"), ("the left lobe", "the right lobe"), ("rules:", "also: sc\nrules:")],
)
def test_workers_of_one_state_folder_have_the_same_rules(site: Site, change: tuple[str, str]) -> None:
    assert RULES.count(change[0]) == 1
    site.worker()
    site.worker()
    with pytest.raises(InputError, match="a worker with other rules"):
        site.worker(RULES.replace(*change))
    site.close()
    site.worker(RULES.replace(*change))


def test_a_worker_does_not_wait_for_one_whose_ledger_was_deleted(site: Site) -> None:
    site.worker()
    for path in (site.folder / "rules.state").glob("ledger*"):
        path.unlink()
    with pytest.raises(InputError, match="whose ledger was deleted"):
        site.worker()


def test_a_damaged_ledger_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = site.worker()

    def damaged(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(QuickLedger, "take", damaged)
        with pytest.raises(InputError, match="is damaged"):
            worker.run(once=True)
    site.close()
    path = site.folder / "rules.state" / "ledger.sqlite"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(InputError, match="is damaged"):
        site.worker()


def test_a_ledger_of_another_version_is_told(site: Site) -> None:
    site.ledger._base.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="another version"):
        site.worker()


def test_a_regular_expression_does_not_hold_the_worker_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "MATCH_S", 0.2)
    site.archive.add(*site.series("a", SeriesDescription="a" * 40 + "!"), *site.series("b", SeriesDescription="aa"))
    site.work(RULES.replace("description: liver", "description: ^(a+)+$"))
    assert site.states() == {"done": 1, "dead": 1}
    (row,) = site.ledger.rows("dead")
    assert "takes longer than 0.2 s" in str(row["reason"])


def test_an_archive_that_sends_for_ever_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "FETCH_S", -60.0)
    site.archive.add(*site.series("a"))
    site.work(RULES.replace("quiet_s", "max_attempts: 2\nquiet_s"))
    (row,) = site.ledger.rows("dead")
    assert row["reason"] == "the archive did not send the series within -1 min (after 2 attempts)"


def test_objects_of_an_earlier_attempt_are_not_of_the_result(site: Site) -> None:
    ledger = site.ledger
    ledger.see(Series(study="1", uid="2", count=1), due=0)
    row = ledger.take()
    assert row is not None
    for number in range(2):
        ledger.plan(row, [Object(uid=f"9.{number}", kind="k", series="s", key="key")])
    assert [one.uid for one in ledger.objects(row) if one.key == "key"] == ["9.1"]


@pytest.mark.parametrize("wrong", [1, 7])
def test_a_series_whose_images_are_miscounted_is_given_up(site: Site, wrong: int) -> None:
    site.archive.add(*site.series("a", 3))
    looks: list[int] = []

    def miscounted(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/series") or request.url.params["offset"] != "0":
            return None
        looks.append(1)
        assert len(looks) < 50, "it never ends"
        rows = site.archive._right_answer(request).json()
        return httpx.Response(200, json=[row | {dicomweb.COUNT: {"vr": "IS", "Value": [wrong]}} for row in rows])

    site.archive.before = miscounted
    site.work(POLLED.replace("quiet_s: 0", "max_attempts: 3\nquiet_s: 0.1"))
    (row,) = site.ledger.rows("dead")
    assert "miscounts its images (after 3 attempts)" in str(row["reason"])


def test_an_archive_that_tells_of_every_modality_is_not_believed(site: Site) -> None:
    site.archive.add(*site.series("mr", Modality="MR"))
    everything = lambda request: httpx.Request("GET", request.url.copy_remove_param("Modality"))  # noqa: E731
    site.archive.before = lambda request: (
        site.archive._right_answer(everything(request)) if "Modality" in request.url.params else None
    )
    site.work(POLLED)
    assert site.states() == {"skipped": 1}


@pytest.mark.parametrize("event", ["taken", "stored"])
def test_a_full_disk_of_the_audit_log_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    site.archive.add(*site.series("a"))
    worker, write, full = site.worker(), Audit.write, [1, 1]

    def fail(audit: Audit, told: str, **facts: Any) -> None:
        if told in (event, "put back") and full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        write(audit, told, **facts)

    monkeypatch.setattr(Audit, "write", fail)
    worker.run(once=True)
    assert (full, site.states()) == ([], {"done": 1})
    assert site.archive.sent("POST", "studies") == site.audit.count('"event": "stored"') == 1


def test_a_full_disk_of_the_ledger_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    worker, finish, full = site.worker(), QuickLedger.finish, [1, 1]

    def fail(*given: Any, **more: Any) -> None:
        if full:
            full.pop()
            raise sqlite3.OperationalError("database or disk is full")
        finish(*given, **more)

    monkeypatch.setattr(QuickLedger, "finish", fail)
    worker.run(once=True)
    assert (full, site.states()) == ([], {"done": 1})
    assert site.archive.sent("POST", "studies") == 1
