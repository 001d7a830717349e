"""A GPU made of NumPy, for what is around it: who copies when, who waits for what, and what may happen at a time.

``FakeDevice`` keeps host and device memory apart, so that a missing copy is seen.  Work "runs" when its stream or an
event is waited for, so that a missing wait is seen, and one for too early an event, too.  Of CUDA's rules it knows:
while a graph is captured, whatever may wait for the whole GPU fails in other threads (900) and spoils the capture
(901); memory that queued work uses must not be freed; a graph keeps the addresses that it was captured with; after an
error of the GPU every call fails.  Streams do not overtake each other, and there is no default stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from lsms_rt.engine.tensorrt.cuda import CaptureFailed
from lsms_rt.engine.tensorrt.lock import GpuLock
from lsms_rt.errors import EngineError, OutOfDeviceMemoryError


class FakeCudaError(Exception):
    """Stands in for ``pycuda.driver.Error``."""


class FakeStream:
    def __init__(self, device: FakeDevice) -> None:
        self.handle, self.calls, self.captured = id(self), device.calls, None
        # (work, the memory that it uses)
        self.queue: list[tuple[Callable[[], None], tuple[Any, ...]]] = []
        self.device = device

    def put(self, what: str, work: Callable[[], None], *memory: Any) -> None:
        self.device.entered()
        assert not any(used.freed for used in memory), "work on memory that was freed"
        self.calls.append(what)
        (self.queue if self.captured is None else self.captured).append((work, memory))

    def synchronize(self) -> None:
        self.device.entered()
        self.run_until(None)

    def run_until(self, last: Callable[[], None] | None) -> None:
        while self.queue:
            work, _ = self.queue.pop(0)
            work()
            if work is last:
                return


class FakeMemory:
    def __init__(self, device: FakeDevice, size: int = 0) -> None:
        self.address, self.size, self.freed, self.owner = 4096 * (len(device.memory_map) + 1), size, False, device
        device.memory_map[self.address] = self

    def free(self) -> None:
        self.owner.waits_for_all("cuMemFree")
        assert not self.freed
        queued = (memory for stream in self.owner.streams.values() for _, used in stream.queue for memory in used)
        assert not any(memory is self for memory in queued), "memory is freed that queued work uses"
        self.freed = True


class FakeBuffer(FakeMemory):
    def __init__(self, device: FakeDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        super().__init__(device)
        self.host, self.device = np.full(shape, 77, dtype), np.full(shape, 99, dtype)

    def upload(self, stream: FakeStream) -> None:
        # Pinned memory is read when the copy runs, not when it is requested.
        data = self.host
        stream.put("upload", lambda: self.device.__setitem__(..., data), self)

    def download(self, stream: FakeStream) -> None:
        stream.put("download", lambda: self.host.__setitem__(..., self.device), self)


class FakeEvent:
    """Its moments count what was put on streams before it: a copy or a launch takes 1 ms."""

    def __init__(self, device: FakeDevice) -> None:
        device.entered()
        self.device, self.moment, self.reached = device, -1, threading.Event()
        self.reached.set()
        self.stream: FakeStream

    def record(self, stream: FakeStream) -> None:
        self.device.entered()
        self.stream, self.moment, self.reached = stream, len(self.device.calls), threading.Event()
        # Nothing that refers to this event: it would die when garbage is collected, anywhere.
        self.mark = self.reached.set
        stream.queue.append((self.mark, ()))

    def synchronize(self) -> None:
        self.device.entered()
        if not self.reached.is_set():
            self.stream.run_until(self.mark)

    def time_since(self, other: FakeEvent) -> float:
        self.device.entered()
        assert self.reached.is_set() and other.reached.is_set(), "events of work that is not done"
        return float(self.moment - other.moment)

    def __del__(self) -> None:
        if not self.device.inside:
            self.device.calls.append("an event died outside of current()")


class FakeDevice:
    """Stands in for ``cuda.Device``.

    Args:
        integrated: whether it shares the CPU's memory.
        capture: the reason why nothing can be captured; empty if it can.

    Attributes:
        during_capture: called while a graph is captured, for what other threads do then.
        broken: the error of the GPU, after which every call fails; empty before.
    """

    def __init__(self, index: int = 0, integrated: bool = False, capture: str = "") -> None:
        self.index, self.integrated, self.refuse_capture = index, integrated, capture
        self.memory_map: dict[int, FakeMemory] = {}
        self.streams: dict[int, FakeStream] = {}
        self.calls: list[str] = []
        self.free_bytes, self.buffers_left, self._inside = 1 << 30, 10**6, threading.local()
        self.lock, self.broken, self.spoiled = GpuLock(), "", ""
        self.capturing: threading.Thread | None = None
        self.during_capture: Callable[[], None] = lambda: None

    @property
    def inside(self) -> int:
        return getattr(self._inside, "depth", 0)

    def entered(self) -> None:
        """Every call of a driver needs the device's context to be the calling thread's, and a GPU that works."""
        assert self.inside, "a call outside of current()"
        if self.broken:
            raise FakeCudaError(self.broken)

    def waits_for_all(self, what: str) -> None:
        """What a call does that may wait for the whole GPU: it must not meet a capture."""
        self.entered()
        if self.capturing is not None:
            self.spoiled = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
            raise FakeCudaError(f"{what} failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    @contextmanager
    def current(self) -> Iterator[None]:
        self._inside.depth = self.inside + 1
        try:
            yield
        except FakeCudaError as error:
            raise EngineError(f"the GPU failed ({error})") from error
        finally:
            self._inside.depth = self.inside - 1

    def exclusive(self) -> Any:
        return self.lock

    def memory(self) -> tuple[int, int]:
        self.entered()
        return self.free_bytes, 1 << 31

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> FakeBuffer:
        self._allocate()
        return FakeBuffer(self, shape, dtype)

    def scratch(self, size: int) -> FakeMemory:
        self._allocate()
        return FakeMemory(self, size)

    def _allocate(self) -> None:
        self.waits_for_all("cuMemAlloc")
        self.buffers_left -= 1
        if self.buffers_left < 0:
            raise OutOfDeviceMemoryError("there is too little memory for the engine's buffers")

    def stream(self) -> FakeStream:
        self.entered()
        stream = FakeStream(self)
        self.streams[stream.handle] = stream
        return stream

    def event(self) -> Any:
        return FakeEvent(self)

    @contextmanager
    def captures(self) -> Iterator[None]:
        """While a graph is captured, here or by the library."""
        assert self.capturing is None, "two captures at a time"
        self.capturing, self.spoiled = threading.current_thread(), ""
        try:
            yield
            self.during_capture()
        finally:
            self.capturing = None
        if self.spoiled:
            raise CaptureFailed(self.spoiled)

    def capture(self, stream: FakeStream, enqueue: Callable[[], bool]) -> Any:
        self.entered()
        assert not stream.queue, "a capture begins on a stream that is done"
        works: list[Any] = []
        try:
            stream.captured = works
            with self.captures():
                enqueued = enqueue()
        except FakeCudaError as error:
            raise CaptureFailed(str(error)) from error
        finally:
            stream.captured = None
        if self.refuse_capture or not enqueued:
            raise CaptureFailed(self.refuse_capture or "the plan could not be enqueued during the capture")
        self.calls.append("captured")

        def launch() -> None:
            for work, memory in works:
                stream.put("launch", work, *memory)

        return SimpleNamespace(launch=launch, free=lambda: self.calls.append("graph freed"))
