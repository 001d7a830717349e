"""After a fork: an engine that was opened before gives an error within seconds, and a new one answers."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lsms_rt
from lsms_rt.engine import open_backend, open_directory, openvino
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.errors import EngineInvalidError
from lsms_rt.reading import quiet
from lsms_rt.reading.dicom import decoder_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    # Python says that forking a process of several threads is dangerous: that is the subject.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SECONDS = 5.0
SENTENCE = "the cyst in the liver"


def in_child(work: Callable[[], object], seconds: float = SECONDS) -> str:
    """Fork, run ``work`` in the child, and return what it returned or raised; "hangs" after ``seconds``."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = f"done {work()}"
        except lsms_rt.LsmsError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode()[:60_000])
        os.close(writing)
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            with open(reading, "rb") as pipe:
                return pipe.read().decode()
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    return "hangs"


def slices(count: int) -> list[np.ndarray]:
    return [np.full((64, 64), -1000.0 + n, np.float32) for n in range(count)]


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest, demo_engine: Path, tmp_path: Path) -> Path:
    if request.param == open_directory(demo_engine).manifest.backend:
        return demo_engine
    pytest.importorskip(request.param)
    other = Path(shutil.copytree(demo_engine, tmp_path / "other.engine"))
    write_manifest(other, replace(open_directory(other).manifest, backend=request.param))
    return other


@pytest.fixture
def segmenter(engine: Path) -> lsms_rt.Segmenter:
    # Several threads, so that there is a pool.
    return lsms_rt.Segmenter(engine, threads=2)


@pytest.mark.parametrize("used", [False, True], ids=["opened", "after a series"])
def test_an_engine_of_the_parent_gives_an_error(segmenter: lsms_rt.Segmenter, used: bool) -> None:
    if used:
        assert len(list(segmenter.predict_series(slices(5), SENTENCE))) == 5
    for work in (
        lambda: segmenter.predict(slices(1)[0], SENTENCE),
        lambda: list(segmenter.predict_series(slices(5), SENTENCE)),
        lambda: segmenter.prepare_sentence("another cyst"),
    ):
        assert in_child(work).startswith("EngineInvalidError: this engine was opened before this process was forked")
    # Closing is nothing in the child, and the parent goes on.
    assert in_child(segmenter.close) == "done None"
    assert segmenter.predict(slices(1)[0], SENTENCE) is not None
    segmenter.close()


def test_a_series_that_has_begun_is_not_continued(segmenter: lsms_rt.Segmenter) -> None:
    series = segmenter.predict_series(slices(6), SENTENCE, batch=1)
    next(series)
    assert "forked" in in_child(lambda: next(series))
    assert len(list(series)) == 5


def test_a_backend_alone_gives_an_error(demo_engine: Path) -> None:
    backend = open_backend(open_directory(demo_engine), threads=2)
    tokens, mask = np.ones((1, 32), np.int64), np.ones((1, 32), np.float32)
    text = backend.encode_text(tokens, mask)
    images = np.zeros((3, 1, 256, 256), np.float32)
    backend.segment(images, text)
    assert "forked" in in_child(lambda: backend.encode_text(tokens, mask))
    assert "forked" in in_child(lambda: backend.segment(images, text))
    assert in_child(backend.close) == "done None"
    backend.close()


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_new_engine_in_the_child_answers(engine: Path, closed: bool) -> None:
    """Of the same library, whether the parent's is open or closed."""
    segmenter = lsms_rt.Segmenter(engine, threads=2)
    list(segmenter.predict_series(slices(3), SENTENCE))
    if closed:
        segmenter.close()
        del segmenter
        gc.collect()

    def again() -> int:
        with lsms_rt.Segmenter(engine, threads=2) as own:
            return len(list(own.predict_series(slices(3), SENTENCE)))

    # It opens and runs an engine within that time.
    assert in_child(again, 60) == "done 3"


FORKS_AND_ENDS = f"""
import gc, os, sys, numpy, lsms_rt
segmenter = lsms_rt.Segmenter(sys.argv[1], threads=2)
list(segmenter.predict_series([numpy.full((64, 64), -1000.0)] * 5, {SENTENCE!r}))
if sys.argv[2] == "closed":
    segmenter.close()
    segmenter = None
    gc.collect()
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
del segmenter
sys.exit(7)
"""


@pytest.mark.parametrize("parents", ["open", "closed"])
def test_the_child_ends(engine: Path, parents: str) -> None:
    """Freeing an engine's sessions in a child may wait for their threads for ever, so they are not freed."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS_AND_ENDS, str(engine), parents]
    assert subprocess.run(command, timeout=60, check=False).returncode == 7


def test_locks_that_a_thread_holds_at_the_fork_are_free_in_the_child() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with quiet._WARNINGS._lock, decoder_process._lock, openvino._LOADING:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)

    def take() -> str:
        with quiet.quiet_pydicom(), decoder_process._lock, openvino._LOADING:
            return "taken"

    try:
        assert in_child(take) == "done taken"
    finally:
        release.set()
        thread.join()


def test_half_a_file_in_a_pipe_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's copy of what a thread was sending must not follow the parent's: answers would be mixed."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    sender = decoder_process._Child()
    sender._process, sender._owner = process, os.getpid()
    monkeypatch.setattr(decoder_process, "_child", sender)
    process.stdin.write(b"half ")
    assert in_child(process.stdin.flush) == "done None"
    assert process.communicate(b"a file")[0] == b"half a file"


def test_a_pool_of_the_parent_gives_an_error() -> None:
    from lsms_rt.engine.slice_pool import SlicePool

    pool = SlicePool(2, lambda: None)
    list(pool.run(slices(2), lambda session, image, n: image))
    assert "forked" in in_child(lambda: list(pool.run(slices(2), lambda session, image, n: image)))
    pool.close()


def test_the_message_says_what_to_do() -> None:
    from lsms_rt.engine.process import Home

    class Owner:
        pass

    home = Home(Owner())
    home.check()
    home._process += 1
    with pytest.raises(EngineInvalidError, match="open a new Segmenter in each process, after the fork"):
        home.check()
