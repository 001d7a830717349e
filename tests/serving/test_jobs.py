"""Images are sent once and asked about: uploads, jobs, progress, results, and VoxTell's client."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
import tracemalloc
import types
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predictions import SLICES

from lsms_rt import Segmenter
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.reading.load import load_slices
from lsms_rt.serving import routes_jobs
from lsms_rt.serving.archive import zipped
from lsms_rt.serving.arrays import pack, unpack
from lsms_rt.serving.replies import RequestError
from lsms_rt.serving.uploads import ending_of
from lsms_rt.serving.volume import image_of, in_ras, mask_in_frame

TEXT = "the lesion in the liver"


def last(live: Any, job: str) -> dict[str, Any]:
    """Wait for a job; return its last event."""
    with live.http.stream("GET", f"/jobs/{job}/events") as response:
        return [json.loads(line) for line in response.iter_lines() if line][-1]


def ask(live: Any, image: str, *sentences: str, **more: Any) -> str:
    response = live.http.post("/jobs", json={"image_id": image, "sentences": list(sentences)} | more)
    assert response.status_code == 200, response.text
    return str(response.json()["job_id"])


def send(live: Any, path: Path) -> str:
    response = live.http.post("/images", params={"include_image": False}, content=path.read_bytes())
    assert response.status_code == 200, response.text
    return str(json.loads(response.headers["X-Meta"])["image_id"])


def parts_of(live: Any) -> list[Path]:
    """What of uploads has arrived; looked for again where the server deletes a folder meanwhile."""
    while True:
        with suppress(FileNotFoundError):
            return list(live.core.uploads.root.rglob("*.part"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, phantom_case: Any) -> Path:
    path = tmp_path_factory.mktemp("series")
    for index in range(SLICES):
        write_slice(path / f"{index}.dcm", phantom_case, index, "case")
    return path


@pytest.fixture(scope="module")
def series(demo: Any, folder: Path) -> Any:
    """A series that was sent file by file, and a finished job about it."""
    first, *others = sorted(folder.iterdir())
    image = demo.http.post("/images", params={"more": True}, content=first.read_bytes()).json()["image_id"]
    for path in others:
        assert demo.http.post(f"/images/{image}/files", content=path.read_bytes()).status_code == 200
    about = demo.http.post(f"/images/{image}/complete").json()
    job = ask(demo, image, TEXT, "the cyst", files=["seg", "nifti", "sr"])
    assert last(demo, job) == {"status": "done"}
    yield about, job
    demo.http.delete(f"/images/{image}")


@pytest.mark.slow
def test_a_series_that_is_sent_file_by_file(demo: Any, folder: Path, series: Any) -> None:
    about, job = series
    slices = load_slices(folder)
    assert about["shape"] == [SLICES, *slices[0].hu.shape]
    assert about["side_known"] is True
    results = demo.http.get(f"/jobs/{job}/results.json").json()
    assert len(results["results"]) == 2 * SLICES
    masks = unpack(demo.http.get(f"/jobs/{job}/result").content, 2**30)
    with Segmenter(demo.core.settings.models[0].path) as segmenter:
        for n, answers in enumerate(segmenter.predict_series(folder, [TEXT, "the cyst"])):
            for k, one in enumerate(answers):
                np.testing.assert_array_equal(in_ras(masks)[k, n], mask_in_frame(one.ct, one.mask))


def test_files_of_a_job(demo: Any, series: Any) -> None:
    _, job = series
    names = demo.http.get(f"/jobs/{job}/files").json()["files"]
    assert {"results.json", "segmentation.dcm", "report.dcm", "view_1.nii.gz"} <= set(names)
    assert not any(name.endswith(".jsonl") for name in names)
    archive = zipfile.ZipFile(io.BytesIO(demo.http.get(f"/jobs/{job}/files.zip").content))
    assert sorted(archive.namelist()) == sorted(names)
    assert demo.http.get(f"/jobs/{job}/files/segmentation.dcm").content[128:132] == b"DICM"
    for name in ("../image.nii.gz", "..%2fimage.nii.gz", "nothing"):
        assert demo.http.get(f"/jobs/{job}/files/{name}").status_code == 404


def test_an_archive_of_any_size_needs_little_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "empty").touch()
    with (tmp_path / "large.dcm").open("wb") as file:
        for _ in range(24):
            file.write(rng.bytes(2**20))
    size = 0
    tracemalloc.start()
    with (tmp_path / "all.zip").open("wb") as file:
        for part in zipped(tmp_path, ["empty", "large.dcm"]):
            size += len(part)
            file.write(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 24 * 2**20
    assert peak < 8 * 2**20
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        digest = hashlib.sha256(archive.read("large.dcm"))
        assert digest.digest() == hashlib.sha256((tmp_path / "large.dcm").read_bytes()).digest()


def test_an_archive_that_nobody_waits_for(demo: Any, example: Path) -> None:
    """A client that leaves in the middle keeps no file: the image can be deleted, and is."""
    image = send(demo, example)
    job = ask(demo, image, TEXT)
    last(demo, job)
    large = demo.core.jobs[job].task.output / "large.dcm"
    large.write_bytes(np.random.default_rng(0).bytes(64 * 2**20))
    with demo.http.stream("GET", f"/jobs/{job}/files.zip") as response:
        parts = response.iter_bytes()
        next(parts)
        # While it is sent, its files stay.
        demo.http.delete(f"/images/{image}")
        assert large.exists()
    end = time.monotonic() + 20
    while large.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert demo.http.get(f"/jobs/{job}/files.zip").status_code == 404


def test_the_volume_for_viewers_is_the_image(demo: Any, folder: Path, series: Any, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    about, _ = series
    path = tmp_path / "v.nii.gz"
    path.write_bytes(demo.http.get(f"/images/{about['image_id']}/volume.nii.gz").content)
    volume = nibabel.load(path)
    slices = load_slices(folder)
    np.testing.assert_array_equal(np.asarray(volume.dataobj).transpose(2, 1, 0), image_of(slices))
    # Rows grow to the back and columns to the patient's left, and slices to the head.
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    np.testing.assert_allclose(volume.header.get_zooms()[:2], slices[0].spacing_mm[::-1], rtol=1e-5)


def test_voxtell_client(demo: Any, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_spec("napari_voxtell")
    if found is None:
        pytest.skip("napari-voxtell is not installed")
    # Its package imports napari; its client does not.
    package = types.ModuleType("napari_voxtell")
    package.__path__ = list(found.submodule_search_locations or ())
    monkeypatch.setitem(sys.modules, "napari_voxtell", package)
    from napari_voxtell.remote.client import VoxTellRemoteClient

    client = VoxTellRemoteClient(demo.url)
    assert client.healthz()
    assert client.capabilities()["model"] == "demo"
    image, array, spacing, shape = client.upload_image(example.read_bytes())
    (ct,) = load_slices(example)
    np.testing.assert_array_equal(array, in_ras(image_of([ct])))
    assert spacing[1:] == pytest.approx(ct.spacing_mm)
    assert array.shape == shape
    job = client.start_job(image, ["the cyst in the liver"])
    assert list(client.stream_events(job))[-1] == {"status": "done"}
    masks = client.get_result(job)
    with Segmenter(demo.core.settings.models[0].path) as segmenter:
        expected = segmenter.predict(example, "the cyst in the liver")
    np.testing.assert_array_equal(in_ras(masks)[0, 0], mask_in_frame(ct, expected.mask))
    assert client.export(image, masks[0])[:2] == b"\x1f\x8b"
    client.close()
    demo.http.delete(f"/images/{image}")


def test_arrays_on_the_wire() -> None:
    for array in (np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.zeros((0, 2), np.uint8), np.ones((), np.float32)):
        np.testing.assert_array_equal(unpack(pack(array), 1000), array)
    good = pack(np.arange(100, dtype=np.uint8))
    for bad in (b"", b"VXA1" + good[4:], good[:-1], good[:30], good.replace(b"|u1", b"|O1"), good + b"x"):
        with pytest.raises(RequestError):
            unpack(bad, 1000)
    with pytest.raises(RequestError):
        unpack(good, 99)


def test_an_unknown_field_is_refused(demo: Any, example: Path) -> None:
    """It would be missed only in the results: a job without its files."""
    image = send(demo, example)
    said = demo.http.post("/jobs", json={"image_id": image, "sentences": ["the cyst"], "filenames": ["seg"]})
    assert said.status_code == 422
    assert "unknown fields: 1" in said.json()["error"]
    demo.http.delete(f"/images/{image}")


def test_a_sentence_that_is_not_understood_ends_the_job(demo: Any, example: Path) -> None:
    image = send(demo, example)
    job = ask(demo, image, "no cyst")
    event = last(demo, job)
    assert (event["status"], event["kind"]) == ("error", "SentenceNotUnderstoodError")
    assert demo.http.get(f"/jobs/{job}/result").status_code == 422
    demo.http.delete(f"/images/{image}")


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 415), (b"x" * 1000, 415), (b"PK\x03\x04" + b"x" * 100, 400), (b"\x1f\x8b" * 50, 400)]
)
def test_what_is_no_image_is_refused(demo: Any, content: bytes, status: int) -> None:
    before = len(demo.core.uploads._kept)
    response = demo.http.post("/images", content=content)
    assert (response.status_code, sorted(response.json())) == (status, ["error", "kind"])
    assert len(demo.core.uploads._kept) == before
    assert not parts_of(demo)


def test_an_upload_is_bounded_while_it_arrives(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes(upload_bytes=10_000)
    # Larger than what Python's files keep before they write it, so that it is seen.
    first, parts = example.read_bytes()[:9000], [b"\0" * 10_000] * 20
    largest, end = 0, time.monotonic() + 20

    def look() -> None:
        nonlocal largest
        with suppress(FileNotFoundError):
            largest = max([largest, *(path.stat().st_size for path in parts_of(live))])

    def body() -> Any:
        yield first
        while not largest and time.monotonic() < end:
            look()
        for part in parts:
            yield part
            time.sleep(0.01)
            look()

    response = live.http.post("/images", content=body())
    assert response.status_code == 413
    assert 0 < largest <= 10_000
    assert not any(path.is_file() for path in live.core.uploads.root.rglob("*"))


def test_only_so_many_uploads_are_kept(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes(uploads=1)
    first = live.http.post("/images", params={"more": True}, content=example.read_bytes()).json()["image_id"]
    assert live.http.post("/images", params={"more": True}, content=example.read_bytes()).status_code == 429
    assert live.http.delete(f"/images/{first}").json() == {"deleted": True}
    assert live.http.get(f"/images/{first}").status_code == 404
    assert live.http.post("/images", params={"more": True}, content=example.read_bytes()).status_code == 200


def test_unused_uploads_and_jobs_are_deleted(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes(idle=0.05)
    image = live.http.post("/images", params={"more": True}, content=example.read_bytes()).json()["image_id"]
    end = time.monotonic() + 20
    while list(live.core.uploads.root.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert live.http.get(f"/images/{image}").status_code == 404


def test_deleting_an_image_deletes_its_results(demo: Any, example: Path) -> None:
    image = send(demo, example)
    job = ask(demo, image, TEXT)
    last(demo, job)
    assert demo.http.delete(f"/images/{image}").status_code == 200
    assert demo.http.get(f"/jobs/{job}").status_code == 404


def test_a_stream_is_never_silent_for_long(
    fakes: Callable[..., Any], example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_jobs, "REPEAT", 0.02)
    monkeypatch.setattr(routes_jobs, "HEARTBEAT", 0.01)
    live = fakes()
    image = live.http.post("/images", params={"more": True}, content=example.read_bytes()).json()["image_id"]
    assert live.http.post(f"/images/{image}/complete").status_code == 200
    ask(live, image, "slow 2000")
    waiting = ask(live, image, "slow 1")
    lines = []
    with live.http.stream("GET", f"/jobs/{waiting}/events") as response:
        for line in response.iter_lines():
            lines.append(json.loads(line))
            if len(lines) == 3:
                live.http.post(f"/jobs/{waiting}/cancel")
    assert lines[:3] == [{"event": "queued"}] * 3
    assert lines[-1] == {"status": "cancelled"}
    live.http.delete(f"/images/{image}")


@pytest.mark.slow
def test_deleting_an_image_cancels_its_job(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes()
    image = live.http.post("/images", params={"more": True}, content=example.read_bytes()).json()["image_id"]
    assert live.http.post(f"/images/{image}/complete").status_code == 200
    ask(live, image, "slow 2000")
    end = time.monotonic() + 20
    while not live.core.pool.running:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert live.http.delete(f"/images/{image}").status_code == 200
    while list(live.core.uploads.root.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert live.core.pool.running == 0


@pytest.mark.parametrize(
    ("head", "ending"),
    [
        (b"\0" * 128 + b"DICM", ".dcm"), (b"\x08\x00\x05\x00CS", ".dcm"), (b"\x02\x00\x00\x00UL", ".dcm"),
        (b"\x08\x00\x05\x01", None), (b"PK\x03\x04", ".zip"), (b"text", None), (b"", None),
    ],
)  # fmt: skip
def test_formats_by_their_first_bytes(head: bytes, ending: str | None) -> None:
    assert ending_of(head) == ending


def test_a_wrong_question_is_refused(demo: Any, example: Path) -> None:
    image = send(demo, example)
    for body in ({}, {"image_id": image}, {"image_id": image, "sentences": ["a"], "files": ["x"]},
                 {"image_id": "x", "sentences": ["a"]}, {"image_id": image, "sentences": ["a"], "model": "x"},
                 {"image_id": image, "sentences": ["a"] * 17}):  # fmt: skip
        response = demo.http.post("/jobs", json=body)
        assert 400 <= response.status_code < 500
        assert response.json()["error"]
    demo.http.delete(f"/images/{image}")
