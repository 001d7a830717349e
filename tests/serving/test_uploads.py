"""What is sent, read and asked at the same time: nothing of one image, reading or job gets into another."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from lsms_rt.serving import private_folder, routes_images, routes_jobs, work
from lsms_rt.serving.jobs import ENDS, Job
from lsms_rt.serving.private_folder import PREFIX, PrivateFolder, sweep
from lsms_rt.serving.tasks import Describe, Done, Infer, Probe
from lsms_rt.serving.volume import IMAGE


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def begin(live: Any, example: Path) -> str:
    return str(live.http.post("/images", params={"more": True}, content=example.read_bytes()).json()["image_id"])


def read(live: Any, image: str, series: str = "slow 1") -> Any:
    return live.http.post(f"/images/{image}/complete", json={"series": series})


def ask(live: Any, image: str, sentence: str = "slow 1") -> Any:
    return live.http.post("/jobs", json={"image_id": image, "sentences": [sentence]})


def finished(live: Any, image: str) -> str:
    job = str(ask(live, image).json()["job_id"])
    until(lambda: live.http.get(f"/jobs/{job}").json()["state"] in ENDS.values())
    return job


class Slow:
    """A body that arrives in two halves, the second when it is let, in a thread of its own."""

    def __init__(self, live: Any, path: str, data: bytes) -> None:
        self.go, self.found = threading.Event(), list[Any]()
        before = live.core.uploads.sent

        def parts() -> Iterator[bytes]:
            yield data[:1000]
            self.go.wait(20)
            yield data[1000:]

        self.thread = threading.Thread(target=lambda: self.found.append(live.http.post(path, content=parts())))
        self.thread.start()
        until(lambda: live.core.uploads.sent == before + 1000)

    def end(self) -> Any:
        self.go.set()
        self.thread.join()
        return self.found[0]


@pytest.mark.slow
def test_no_job_begins_while_another_series_is_read(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes()
    image = begin(live, example)
    assert read(live, image, "slow 2").json()["read"] == "slow 2"
    former = finished(live, image)
    thread = threading.Thread(target=lambda: read(live, image, "slow 50"))
    thread.start()
    until(lambda: live.core.pool.running)
    response = ask(live, image)
    assert (response.status_code, "being read" in response.json()["error"]) == (409, True)
    assert read(live, image).status_code == 409
    thread.join()
    # Its masks were those of the other series.
    assert live.http.get(f"/jobs/{former}").status_code == 404
    job = finished(live, image)
    assert live.http.get(f"/jobs/{job}/results.json").json() == {"grid": "slow 50"}
    assert len(list((live.core.uploads.get(image).folder).glob("reading-*"))) == 1


@pytest.mark.parametrize("fault", ["raise", "die"])
def test_a_reading_that_fails_leaves_the_former_one(fakes: Callable[..., Any], example: Path, fault: str) -> None:
    live = fakes()
    image = begin(live, example)
    read(live, image, "slow 2")
    former = finished(live, image)
    assert read(live, image, fault).status_code >= 500
    assert live.http.get(f"/images/{image}").json()["read"] == "slow 2"
    assert live.http.get(f"/images/{image}/volume.nii.gz").content == b"slow 2"
    assert live.http.get(f"/jobs/{former}/results.json").json() == {"grid": "slow 2"}
    assert len(list((live.core.uploads.get(image).folder).glob("reading-*"))) == 1


def test_no_file_joins_an_image_that_is_read(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes()
    image = begin(live, example)
    slow = Slow(live, f"/images/{image}/files", example.read_bytes())
    assert read(live, image).status_code == 409
    assert slow.end().json() == {"image_id": image, "files": 2}
    assert read(live, image).status_code == 200
    assert live.http.post(f"/images/{image}/files", content=example.read_bytes()).status_code == 409


def test_an_image_that_is_deleted_while_a_file_arrives(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes()
    image = begin(live, example)
    slow = Slow(live, f"/images/{image}/files", example.read_bytes())
    assert live.http.delete(f"/images/{image}").status_code == 200
    assert live.http.get(f"/images/{image}").status_code == 404
    assert slow.end().status_code == 404
    until(lambda: not list(live.core.uploads.root.iterdir()))
    assert live.core.uploads.sent == 0


def test_bytes_that_arrive_count(fakes: Callable[..., Any], example: Path) -> None:
    data = example.read_bytes()
    live = fakes(upload_bytes=len(data) + 500)
    slow = Slow(live, "/images?more=true", data)
    assert live.core.uploads.sent == 1000
    assert live.http.post("/images?more=true", content=data).status_code == 413
    assert live.core.uploads.sent == 1000
    assert slow.end().status_code == 200
    assert live.core.uploads.sent == len(data)


def test_results_count_and_are_not_kept_in_memory(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes(upload_bytes=len(example.read_bytes()))
    image = begin(live, example)
    # The volume of this reading has as many bytes as the words that ask for it.
    read(live, image, "slow 1" + " " * (live.core.settings.upload_bytes - 7))
    job = finished(live, image)
    assert live.core.jobs[job].reply.value is None
    until(lambda: live.core.uploads.made > live.core.settings.upload_bytes)
    assert ask(live, image).status_code == 413
    live.http.delete(f"/images/{image}")
    assert (live.core.uploads.made, live.core.uploads.sent) == (0, 0)


def test_half_a_volume_is_none(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "write_volume", killed)
    with pytest.raises(KeyboardInterrupt):
        work._describe(Describe(source=example, output=tmp_path / "reading"))
    assert not (tmp_path / "reading" / IMAGE).exists()


def test_routes_change_state_on_the_event_loop() -> None:
    both = (*routes_images.router.routes, *routes_jobs.router.routes)
    routes = [route for route in both if isinstance(route, APIRoute)]
    assert len(routes) > 10
    assert all(inspect.iscoroutinefunction(route.endpoint) for route in routes)


def test_the_reaper_survives_an_error(
    fakes: Callable[..., Any], example: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = fakes(idle=0.05)
    idle, times = live.core.uploads.idle, []

    def broken() -> Any:
        times.append(1)
        if len(times) == 1:
            raise RuntimeError("Mr. Miller")
        return idle()

    monkeypatch.setattr(live.core.uploads, "idle", broken)
    begin(live, example)
    until(lambda: not list(live.core.uploads.root.iterdir()))
    assert "RuntimeError" in caplog.text
    assert "Miller" not in caplog.text


def test_idle_images_go_with_their_jobs(fakes: Callable[..., Any], example: Path) -> None:
    live = fakes(idle=0.3)
    image = begin(live, example)
    read(live, image)
    ask(live, image)
    until(lambda: not list(live.core.uploads.root.iterdir()))
    assert not live.core.jobs


def test_a_job_that_is_over_has_its_reply() -> None:
    job = Job(Probe())
    wrong, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if job.state in ENDS.values() and job.reply is None:
                wrong.append(job.state)

    thread = threading.Thread(target=watch)
    thread.start()
    job.start()
    job.tell(Done({}))
    stop.set()
    thread.join()
    assert not wrong
    assert job.state == "done"
    # There is no second place that could say something else.
    assert "state" not in vars(job)


def test_bytes_of_a_killed_worker_are_deleted(fakes: Callable[..., Any]) -> None:
    live = fakes()
    dicom = {"name": "DICOM", "datatype": "BYTES", "shape": [1], "data": ["x"]}
    text = {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["die"]}
    assert live.http.post("/v2/models/demo/infer", json={"inputs": [dicom, text]}).status_code == 503
    until(lambda: not list(live.core.uploads.root.iterdir()))


def test_bytes_of_a_request_lie_in_the_folder_of_the_server(
    fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live, asked = fakes(), []
    monkeypatch.setattr(live.core.pool, "submit", asked.append)
    live.core.submit(Infer(model="demo", image=b"x", sentences=("slow 1",)))
    assert asked[0].task.scratch.parent == live.core.uploads.root


def test_what_a_killed_server_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_folder.tempfile, "tempdir", str(tmp_path))
    code = (
        "import time; from lsms_rt.serving.private_folder import PrivateFolder; "
        "f = PrivateFolder(); (f.path / 'x').touch(); print(f.path, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None
    left = Path(other.stdout.readline().strip())
    mine = PrivateFolder()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    assert sweep() == 0
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    assert left.is_dir()
    assert sweep() == 1
    assert not left.exists()
    assert mine.path.is_dir() and elsewhere.is_dir()
    assert mine.path.stat().st_mode & 0o777 == 0o700
    mine.close()
    assert not mine.path.exists()


def test_a_misspelled_fact_is_refused(fakes: Callable[..., Any], example: Path) -> None:
    """It would be left out, and the image read without it; the name is not repeated, it may be anything."""
    live = fakes()
    image = begin(live, example)
    answer = live.http.post(f"/images/{image}/complete", json={"seris": "slow 1", "orientation": 3})
    assert answer.status_code == 422
    said = answer.json()["error"]
    assert "unknown fields: 1, whose names may be misspelled" in said
    assert "body.orientation" in said
    assert "seris" not in said
    assert read(live, image).status_code == 200
