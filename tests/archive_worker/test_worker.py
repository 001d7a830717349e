"""A worker on an archive in memory: what it stores, what it leaves alone, what it tries again, what survives a kill."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dciodvfy
import httpx
import pytest
from worker_series import OTHER, damage, uids
from worker_site import RULES, QuickLedger, Site

from lsms_rt.archive_worker import work as work_module
from lsms_rt.archive_worker.retry import (
    FIRST_S,
    LONGEST_S,
    MAX_ENDED,
    ArchiveDeniedError,
    ArchiveRefusedError,
    delay,
)
from lsms_rt.errors import InputError


def results(site: Site) -> dict[str, list[set[str]]]:
    """Return for each study with a report, which images each of its reports is of."""
    found: dict[str, list[set[str]]] = {}
    for ds in site.archive.headers("SR"):
        series = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        images = {item.ReferencedSOPInstanceUID for row in series for item in row.ReferencedSOPSequence}
        segs = {seg.SOPInstanceUID for seg in site.archive.headers("SEG")}
        found.setdefault(ds.StudyInstanceUID, []).append(images - segs)
    return found


def images(site: Site, name: str) -> set[str]:
    return {ds.SOPInstanceUID for ds in site.archive.headers("CT") if ds.SeriesInstanceUID == uids(name)[1]}


def test_delays_grow_up_to_a_limit_and_differ() -> None:
    for attempt in range(1, 40):
        wait = min(LONGEST_S, FIRST_S * 2 ** (attempt - 1))
        found = {delay(attempt) for _ in range(20)}
        assert 0.5 * wait <= min(found) < max(found) <= 1.5 * wait
    assert delay(10**6, longest=60.0) <= 90.0


@pytest.mark.slow
def test_results_are_stored_in_the_study_of_the_images(site: Site) -> None:
    site.archive.add(*site.series("a"), *site.series("b"))
    site.work(RULES.replace("rules:", "also: sc\nrules:"))
    assert results(site) == {uids(name)[0]: [images(site, name)] for name in "ab"}
    for modality in ("SEG", "SR", "OT"):
        assert {ds.StudyInstanceUID for ds in site.archive.headers(modality)} == {uids("a")[0], uids("b")[0]}
    assert "left lobe" in site.archive.headers("SEG")[0].SegmentSequence[0].SegmentDescription


def test_a_second_worker_has_nothing_to_do(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.work()
    before = dict(site.archive.files)
    site.work()
    assert site.archive.files == before
    assert site.archive.sent("POST", "studies") == 1


def test_without_a_ledger_the_results_are_recognized_in_the_archive(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.work()
    (site.folder / "rules.state" / "ledger.sqlite").unlink()
    site.work()
    assert site.archive.sent("POST", "studies") == 1
    assert len(results(site)[uids("a")[0]]) == 1
    assert site.states() == {"done": 1}


def test_nothing_happens_where_no_rule_matches(site: Site) -> None:
    site.archive.add(*site.series("head", SeriesDescription=OTHER), *site.series("mr", Modality="MR"))
    site.work()
    assert site.archive.headers("SR") == []
    assert site.states() == {"skipped": 1}
    assert '"reason": "no rule matches"' in site.audit


def test_own_output_is_never_input(site: Site) -> None:
    own = {"Manufacturer": "lsms-rt", "ManufacturerModelName": "lsms-rt"}
    site.archive.add(*site.series("a"), *site.series("ours", **own))
    site.work()
    site.work()
    assert list(results(site)) == [uids("a")[0]]
    assert site.states() == {"done": 1, "skipped": 1}


def test_a_first_start_leaves_alone_what_is_there(site: Site) -> None:
    text = RULES.replace("start: all", "start: new")
    site.archive.add(*site.series("old"), *site.series("late"))
    site.work(text)
    site.archive.add(*site.series("new"), *site.series("late", 1, first=2))
    site.work(text)
    assert sorted(results(site)) == sorted([uids("new")[0], uids("late")[0]])


@pytest.mark.parametrize("orthanc", [True, False])
def test_late_slices_supersede(site: Site, orthanc: bool) -> None:
    text = RULES if orthanc else RULES.replace(", orthanc: 'http://archive.test'", "")
    site.archive.add(*site.series("a"))
    site.work(text)
    (old,) = site.archive.headers("SR")
    site.archive.add(*site.series("a", 1, first=2))
    site.work(text)
    new = [ds for ds in site.archive.headers("SR") if ds.SOPInstanceUID != old.SOPInstanceUID]
    assert len(new) == 1
    assert images(site, "a") in results(site)[uids("a")[0]]
    if orthanc:
        assert results(site) == {uids("a")[0]: [images(site, "a")]}
        assert len(site.archive.headers("SEG")) == 1
    else:
        (study,) = new[0].PredecessorDocumentsSequence
        assert study.StudyInstanceUID == uids("a")[0]
        (series,) = study.ReferencedSeriesSequence
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        path = site.folder / "report.dcm"
        path.write_bytes(site.archive.files[new[0].SOPInstanceUID])
        dciodvfy.check(path, "Comprehensive3DSR")


def test_only_objects_of_this_package_are_deleted(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.work()
    ledger = site.ledger
    image = site.archive.headers("CT")[0].SOPInstanceUID
    ledger._base.execute("UPDATE objects SET uid = ? WHERE class LIKE '%88.34'", (image,))
    site.archive.add(*site.series("a", 1, first=2))
    site.work()
    assert image in site.archive.files
    assert site.states() == {"dead": 1}


def test_a_series_that_still_grows_is_not_fetched(site: Site) -> None:
    first, second = site.series("a")
    grown = []

    def grow(request: httpx.Request) -> None:
        if request.url.path.endswith("/instances") and not grown:
            grown.append(True)
            site.archive.add(second)

    site.archive.add(first)
    site.archive.before = grow
    site.work()
    assert '"event": "growing"' in site.audit
    assert results(site) == {uids("a")[0]: [images(site, "a")]}


def test_a_series_that_grows_while_it_is_done_is_done_again(site: Site) -> None:
    *most, last = site.series("a", 3)
    site.archive.add(*most)
    worker = site.worker()

    def grow(request: httpx.Request) -> None:
        if request.method == "POST" and "studies" in request.url.path and last.exists():
            site.archive.add(last)
            last.unlink()
            worker._feed.look()

    site.archive.before = grow
    worker.run(once=True)
    assert results(site) == {uids("a")[0]: [images(site, "a")]}
    assert site.archive.sent("POST", "studies") == 2


@pytest.mark.parametrize("fault", [500, 503, httpx.ReadTimeout, httpx.RemoteProtocolError, "cut off", "one is missing"])
def test_a_fault_that_passes_is_tried_again(site: Site, fault: Any) -> None:
    site.archive.add(*site.series("a"))
    left = [fault, fault]

    def fail(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(uids("a")[1]) or not left:
            return None
        left.pop()
        if isinstance(fault, int):
            return httpx.Response(fault)
        if not isinstance(fault, str):
            raise fault("of the connection")
        answer = site.archive._right_answer(request)
        body = answer.content[:-4] if fault == "cut off" else answer.content.replace(b"--a-boundary\r\n", b"", 1)
        return httpx.Response(200, content=body, headers={"Content-Type": answer.headers["Content-Type"]})

    site.archive.before = fail
    site.work()
    assert len(results(site)[uids("a")[0]]) == 1
    assert site.audit.count('"event": "put back"') == 2


@pytest.mark.parametrize("status", [400, 404, 409, 410, 429, 302])
def test_a_refusal_is_never_tried_again(site: Site, status: int) -> None:
    site.archive.add(*site.series("a"))
    fetches = []

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(uids("a")[1]):
            return None
        fetches.append(1)
        return httpx.Response(status)

    site.archive.before = refuse
    site.work()
    site.work()
    assert (len(fetches), site.states()) == (1, {"dead": 1})
    (row,) = site.ledger.rows("dead")
    assert row["reason"] == f"the archive refused (HTTP {status})"


def test_a_series_that_always_fails_is_given_up_with_its_reason(site: Site) -> None:
    site.archive.add(*site.series("a"), *site.series("b"))
    bad = uids("a")[1]
    site.archive.before = lambda request: httpx.Response(500) if request.url.path.endswith(bad) else None
    site.work(RULES.replace("quiet_s", "max_attempts: 3\nquiet_s"))
    assert site.states() == {"done": 1, "dead": 1}
    (row,) = site.ledger.rows("dead")
    assert row["reason"] == "the archive failed (HTTP 500) (after 3 attempts)"
    site.archive.before = lambda request: None
    assert site.ledger.retry() == 1
    site.work()
    assert site.states() == {"done": 2}


def test_an_archive_that_is_away_is_waited_for(site: Site) -> None:
    site.archive.add(*site.series("a"))
    left = list(range(20))

    def refuse(request: httpx.Request) -> None:
        if "studies" in request.url.path and left:
            left.pop()
            raise httpx.ConnectError("refused")

    site.archive.before = refuse
    site.work(RULES.replace("quiet_s", "max_attempts: 2\nquiet_s"))
    assert site.states() == {"done": 1}


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_that_is_refused_ends_and_loses_nothing(site: Site, status: int) -> None:
    site.archive.add(*site.series("a"))
    site.archive.before = lambda request: httpx.Response(status) if "studies" in request.url.path else None
    with pytest.raises(ArchiveDeniedError, match="LSMS_RT_ARCHIVE_USER"):
        site.work()
    assert site.states() == {"queued": 1}


def test_a_wrong_url_ends_the_worker(site: Site) -> None:
    site.archive.before = lambda request: httpx.Response(404)
    with pytest.raises(ArchiveRefusedError, match="HTTP 404"):
        site.work()


def test_a_store_whose_answer_is_lost_is_not_repeated(site: Site) -> None:
    site.archive.add(*site.series("a"))
    lost = []

    def lose(request: httpx.Request) -> None:
        if request.method == "POST" and "studies" in request.url.path:
            lost.append(1)
            raise httpx.ReadTimeout("no answer")

    site.archive.after = lose
    site.work()
    assert (len(lost), site.states()) == (1, {"done": 1})
    assert len(results(site)[uids("a")[0]]) == 1


def test_a_duplicate_is_no_error(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.archive.after = lambda request: httpx.Response(409) if request.method == "POST" else None
    site.work()
    assert site.states() == {"done": 1}


@pytest.mark.parametrize("status, posts", [(409, 1), (400, 1), (200, 3)])
def test_a_store_that_stores_nothing_is_told(site: Site, status: int, posts: int) -> None:
    site.archive.add(*site.series("a"))
    stored = lambda request: request.method == "POST" and "studies" in request.url.path  # noqa: E731
    site.archive.before = lambda request: httpx.Response(status, json={}) if stored(request) else None
    site.work(RULES.replace("quiet_s", "max_attempts: 3\nquiet_s"))
    assert site.states() == {"dead": 1}
    assert site.archive.sent("POST", "studies") == posts


def test_a_damaged_series_is_given_up_and_one_damaged_slice_is_told(site: Site) -> None:
    bad, part = site.series("bad"), site.series("part", 3)
    for path in (*bad, part[0]):
        damage(path)
    site.archive.add(*bad, *part)
    site.work()
    assert site.states() == {"done": 1, "dead": 1}
    assert results(site).keys() == {uids("part")[0]}
    assert "incomplete" in site.archive.headers("SR")[0].SeriesDescription
    assert '"without_result": 1' in site.audit


def test_a_full_disk_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))
    free = [0, 2**30, 0, 2**40, 2**40]
    usage = type("Usage", (), {"free": property(lambda self: free.pop(0) if len(free) > 1 else free[0])})
    monkeypatch.setattr(work_module.shutil, "disk_usage", lambda folder: usage())
    full, opened = [], Path.open

    def fail_once(path: Path, mode: str = "r", *more: Any, **others: Any) -> Any:
        if mode == "xb" and not full:
            full.append(1)
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *more, **others)

    monkeypatch.setattr(Path, "open", fail_once)
    site.work(RULES.replace("quiet_s", "max_attempts: 1\nquiet_s"))
    assert site.states() == {"done": 1}
    assert site.audit.count('"event": "put back"') == 3


def test_an_unexpected_error_is_given_up_without_its_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.add(*site.series("a"))

    def fail(*_: Any) -> None:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(work_module, "run", fail)
    site.work()
    (row,) = site.ledger.rows("dead")
    assert row["reason"] == "unexpected RuntimeError (after 3 attempts)"
    assert "Doe" not in site.audit


def test_a_series_that_ends_the_worker_is_given_up(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.worker()._feed.look()
    for _ in range(MAX_ENDED):
        assert site.ledger.take() is not None
        site.kill()
    assert site.ledger.take() is None
    (row,) = site.ledger.rows("dead")
    assert row["reason"] == f"the worker ended {MAX_ENDED} times while it did it"


def test_two_workers_share_one_queue(site: Site) -> None:
    site.archive.add(*site.series("a"), *site.series("b"))
    site.worker()._feed.look()
    first, second, third = (site.ledger.take() for _ in range(3))
    assert first is not None
    assert second is not None
    assert (third, {first.number, second.number}) == (None, {1, 2})


def test_the_cursor_does_not_pass_what_is_not_stored(site: Site) -> None:
    site.archive.add(*site.series("a"))
    site.archive.add(*site.series("b"))
    worker, ledger = site.worker(), site.ledger
    worker._feed.look()
    worker._feed.look()
    assert len(site.archive.changes) == 4
    assert ledger.cursor() == 1
    row = ledger.take()
    assert row is not None
    ledger.finish(row, "done")
    worker._feed.look()
    assert ledger.cursor() == 3
    worker.run(once=True)
    worker._feed.look()
    assert ledger.cursor() == len(site.archive.changes)


@pytest.mark.parametrize("away", [True, False])
def test_an_emptied_archive_is_looked_at_again(site: Site, away: bool) -> None:
    site.archive.add(*site.series("a"))
    site.archive.add(*site.series("b"))
    worker = site.worker()
    worker.run(once=True)
    worker._look()
    site.archive.clear()
    faults = [1]
    site.archive.before = lambda request: httpx.Response(503) if away and faults and faults.pop() else None
    worker._look()
    site.archive.add(*site.series("a"))
    (worker if away else site.worker()).run(once=True)
    assert len(results(site)[uids("a")[0]]) == 1


@pytest.mark.parametrize("answer", [{"a": 1}, [{"0020000E": {"Value": ["../secret"]}}], "text", [1]])
def test_an_archive_that_answers_nonsense_is_asked_again(site: Site, answer: object) -> None:
    site.archive.add(*site.series("a"))
    wrong = [1, 1]
    site.archive.before = lambda request: httpx.Response(200, json=answer) if wrong and wrong.pop() else None
    site.work()
    assert site.states() == {"done": 1}
    assert site.archive.sent("GET", r"secret|\.\.") == 0


def test_what_is_told_names_nobody(site: Site) -> None:
    bad = site.series("bad")
    for path in bad:
        damage(path)
    site.archive.add(*site.series("a"), *bad, *site.series("head", SeriesDescription=OTHER))
    site.work()
    told = site.audit + json.dumps([{k: v for k, v in row.items() if k != "uid"} for row in site.ledger.rows("dead")])
    for secret in ("Doe", "worker-", *uids("a"), *uids("bad"), "lobe", "liver", "Head", "DICOM.dcm"):
        assert secret not in told
    modes = [path.stat().st_mode & 0o077 for path in (site.folder / "rules.state").iterdir()]
    assert set(modes) == {0}


def test_what_a_killed_worker_fetched_is_deleted_by_an_idle_one(site: Site, tmp_path: Path) -> None:
    left = tmp_path / "tmp" / f"{work_module.PREFIX}left"
    (left / "images").mkdir(parents=True)
    site.work()
    assert not left.exists()


def test_a_sentence_that_the_engine_refuses_ends_the_start(site: Site) -> None:
    from fake_segmenter import fake_segmenter

    from lsms_rt.archive_worker.start import started

    rules = site.rules(RULES.replace("the lesion in the left lobe of the liver", "no lesion"))
    with pytest.raises(InputError, match="rule 1: "), started(fake_segmenter(), rules, None):
        pass


class Killed(BaseException):
    """What a process that is killed does no more."""


class Steps:
    """Counts the steps of a worker, and ends it at one of them; a request and a commit are two steps each."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0

    def step(self, _: object = None) -> None:
        self.count += 1
        if self.count >= self.last:
            raise Killed


@pytest.mark.slow
def test_whenever_it_is_killed_every_series_has_its_result_once(site: Site) -> None:
    """At every step in turn: before and after each request has its effect, and each change of the ledger."""
    series, late = site.series("a"), site.series("a", 1, first=2)
    killed_at = 0
    for last in range(1, 1000):
        steps = Steps(last)

        class Mortal(QuickLedger):
            @contextmanager
            def _change(self, steps: Steps = steps) -> Iterator[Any]:
                steps.step()
                with super()._change() as base:
                    yield base
                steps.step()

        for path in (site.folder / "rules.state").glob("*"):
            path.unlink()
        site.archive.clear()
        site.archive.before = site.archive.after = steps.step  # type: ignore[assignment]
        ended = False
        for part in (series, late):
            site.archive.add(*part)
            try:
                site.worker(make=Mortal).run(once=True)
            except Killed:
                ended = True
                steps.last = 10**9
                site.kill()
                site.work()
        assert results(site) == {uids("a")[0]: [images(site, "a")]}, f"killed at step {last}"
        assert len(site.archive.headers("SEG")) == 1
        site.close()
        if not ended:
            break
        killed_at = last
    assert killed_at > 80
