"""Questions to an archive: pages, headers, logins, the size of what is sent."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fake_archive import URL
from worker_series import uids
from worker_site import Site

from lsms_rt.archive_worker import dicomweb, http, orthanc
from lsms_rt.archive_worker.dicomweb import DicomWeb
from lsms_rt.archive_worker.http import Http, Login
from lsms_rt.archive_worker.orthanc import Orthanc
from lsms_rt.archive_worker.retry import ArchiveFailedError, ArchiveRefusedError


def archive(site: Site, login: Login = Login()) -> DicomWeb:  # noqa: B008
    return DicomWeb(Http(f"{URL}/dicom-web", login, transport=site.archive.transport))


@pytest.fixture
def pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with five series, and pages of two entries."""
    for module in (dicomweb, orthanc):
        monkeypatch.setattr(module, "PAGE", 2)
    for name in ("a", "b", "c", "d", "e"):
        site.archive.add(*site.series(name, 1))
    return site


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_all_pages_are_read_however_long_they_are(pages: Site, page: int) -> None:
    def other_pages(request: httpx.Request) -> httpx.Response:
        limited = request.url.copy_set_param("limit", str(page))
        if page > 5:
            limited = limited.copy_set_param("offset", "0")
        return pages.archive._right_answer(httpx.Request("GET", limited))

    pages.archive.before = other_pages
    found = [series.uid for series in archive(pages).series(0)]
    assert sorted(found) == sorted(uids(name)[1] for name in "abcde")


def test_an_archive_that_tells_only_its_first_page_is_an_error(pages: Site) -> None:
    def first_page(request: httpx.Request) -> httpx.Response:
        return pages.archive._right_answer(httpx.Request("GET", request.url.copy_set_param("offset", "0")))

    pages.archive.before = first_page
    with pytest.raises(ArchiveRefusedError, match="only its first 2 entries"):
        list(archive(pages).series(0))


def test_changes_are_read_page_by_page(pages: Site) -> None:
    own = Orthanc(Http(URL, Login(), transport=pages.archive.transport))
    numbers = [change.number for _, page in own.changes(0) for change in page]
    assert numbers == sorted(numbers)
    assert numbers[-1] == own.last() == 10


@pytest.mark.parametrize("row", ["text", {}, {"ChangeType": "NewSeries"}, {"Seq": "x", "ChangeType": "y", "ID": "z"}])
def test_changes_that_are_none_are_an_error_of_the_archive(site: Site, row: object) -> None:
    site.archive.before = lambda request: httpx.Response(200, json={"Changes": [row], "Last": 9, "Done": True})
    with pytest.raises(ArchiveFailedError, match="not as Orthanc answers"):
        list(Orthanc(Http(URL, Login(), transport=site.archive.transport)).changes(0))


def test_an_answer_that_is_too_deep_is_an_error_of_the_archive(site: Site) -> None:
    site.archive.before = lambda request: httpx.Response(200, content=b"[" * 100_000)
    with pytest.raises(ArchiveFailedError, match="not JSON"):
        list(archive(site).series(0))


def test_an_answer_that_does_not_end_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * 2**20:
            sent += 2**20
            yield b" " * 2**20

    monkeypatch.setattr(http, "MAX_JSON", 4 * 2**20)
    site.archive.before = lambda request: httpx.Response(200, content=parts())
    with pytest.raises(ArchiveFailedError, match="larger than 4 MiB"):
        list(archive(site).series(0))
    assert sent < 10 * 2**20


def test_a_packed_answer_is_left(site: Site) -> None:
    """Packed, gigabytes of spaces are a few bytes; an archive that was not asked to pack has no reason to."""
    asked: list[str] = []

    def packed(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, content=iter([gzip.compress(b"[]")]), headers={"Content-Encoding": "gzip"})

    site.archive.before = packed
    with pytest.raises(ArchiveFailedError, match="packs its answer"):
        list(archive(site).series(0))
    assert set(asked) == {"identity"}


def test_polling_asks_for_studies_of_the_last_days(site: Site) -> None:
    asked: list[str | None] = []
    site.archive.before = lambda request: asked.append(request.url.params.get("StudyDate"))
    for days in (0, 3):
        list(archive(site).series(days))
    assert asked[0] is None
    assert asked[-1] is not None
    assert len(asked[-1]) == len("20260101-20260105")


@pytest.mark.parametrize(
    "item, thickness",
    [
        ({"00180050": {"vr": "DS", "Value": [2.5]}}, 2.5),
        ({"00180050": {"vr": "DS", "Value": ["2.5"]}}, 2.5),
        ({"00180050": {"vr": "DS", "Value": [None]}}, None),
        ({"00180050": {"vr": "DS"}}, None),
        ({"52009229": {"Value": [{"00289110": {"Value": [{"00180050": {"Value": [4]}}]}}]}}, 4.0),
        ({}, None),
    ],
)
def test_the_slice_thickness_is_read_wherever_it_is(site: Site, item: dict[str, Any], thickness: float | None) -> None:
    site.archive.before = lambda request: httpx.Response(200, json=[item | {"0008103E": {"Value": [7]}}])
    facts = archive(site).facts("1", "2", "3")
    assert (facts.slice_thickness_mm, facts.series_description) == (thickness, None)


@pytest.mark.parametrize(
    "environment, header",
    [
        ({}, None),
        ({"LSMS_RT_ARCHIVE_TOKEN": "abc"}, "Bearer abc"),
        ({"LSMS_RT_ARCHIVE_USER": "a", "LSMS_RT_ARCHIVE_PASSWORD": "b"}, "Basic YTpi"),
    ],
)
def test_logins_come_from_the_environment(site: Site, environment: dict[str, str], header: str | None) -> None:
    sent: list[str | None] = []
    site.archive.before = lambda request: sent.append(request.headers.get("Authorization"))
    login = Login.of_environment(environment)
    assert "abc" not in repr(login)
    list(archive(site, login).series(0))
    assert sent == [header]


def test_large_results_are_sent_in_several_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "STOW_BYTES", 40_000)
    site.archive.add(*site.series("other", 1))
    archive(site).store(uids("a")[0], site.series("a", 3))
    assert site.archive.sent("POST", "studies") == 3
    assert len(site.archive.files) == 4
