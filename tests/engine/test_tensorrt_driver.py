"""Captures by the CUDA driver, over bindings that answer what is wanted: nothing is lost and nothing is unchecked."""

from __future__ import annotations

import enum
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lsms_rt.engine.tensorrt import cuda
from lsms_rt.engine.tensorrt.cuda import CaptureFailed, Device
from lsms_rt.errors import EngineError


class Result(enum.Enum):
    CUDA_SUCCESS, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 0, 901


class Bindings:
    """Stands in for ``cuda.bindings.driver``; ``fails`` names a call that fails."""

    CUresult = Result
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = ""

    def __getattr__(self, name: str) -> Any:
        results = {"cuStreamEndCapture": "graph", "cuGraphInstantiate": "executable"}

        def call(*_: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.fails:
                return Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, *([None] * (name in results))
            return Result.CUDA_SUCCESS, *([results[name]] if name in results else [])

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Bindings:
    module, found = ModuleType("cuda.bindings"), Bindings()
    module.driver = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", module)
    return found


def capture(enqueue: Any = lambda: True) -> Any:
    return object.__new__(Device).capture(SimpleNamespace(handle=1), enqueue)


def test_a_graph_is_captured_launched_and_destroyed(driver: Bindings) -> None:
    graph = capture()
    graph.launch()
    graph.free()
    assert driver.calls == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]  # fmt: skip
    driver.fails = "cuGraphExecDestroy"
    with pytest.raises(EngineError, match="cuGraphExecDestroy failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        graph.free()


@pytest.mark.parametrize("fails", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_call_that_fails_leaves_no_graph(driver: Bindings, fails: str) -> None:
    driver.fails = fails
    with pytest.raises(CaptureFailed, match=f"{fails} failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        capture()
    assert driver.calls.count("cuGraphDestroy") == (fails == "cuGraphInstantiate")


@pytest.mark.parametrize(
    ("error", "raised"), [(None, CaptureFailed), (RuntimeError("no"), CaptureFailed), (KeyboardInterrupt(), None)]
)
def test_a_plan_that_is_not_enqueued_leaves_no_graph(driver: Bindings, error: Any, raised: Any) -> None:
    """It may answer False, or raise; either way the capture is ended, and its graph destroyed."""

    def enqueue() -> bool:
        if error is not None:
            raise error
        return False

    with pytest.raises(raised or KeyboardInterrupt):
        capture(enqueue)
    assert driver.calls == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphDestroy"]


def test_a_graph_that_cannot_be_destroyed_is_said(driver: Bindings, caplog: pytest.LogCaptureFixture) -> None:
    driver.fails = "cuGraphDestroy"
    assert capture() is not None
    assert caplog.messages == ["cuGraphDestroy failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"]


def test_engines_on_one_gpu_share_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture of one engine must not meet the set-up of another."""
    pycuda = ModuleType("pycuda.driver")
    pycuda.init = lambda: None  # type: ignore[attr-defined]
    pycuda.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: None)  # type: ignore[attr-defined]
    pycuda.MemoryError = pycuda.Error = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=pycuda))
    monkeypatch.setitem(sys.modules, "pycuda.driver", pycuda)
    monkeypatch.setattr(cuda, "_LOCKS", {})
    first, second, other = Device(0, False), Device(0, False), Device(1, False)
    with first.exclusive():
        free: list[bool] = []
        for device in (second, other):
            thread = threading.Thread(target=lambda d=device: free.append(d._lock._lock.acquire(blocking=False)))
            thread.start()
            thread.join()
    assert free == [False, True]
