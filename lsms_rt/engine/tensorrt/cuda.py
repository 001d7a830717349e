"""Calls of the CUDA driver: memory, streams and events by pycuda, CUDA graphs by cuda-bindings.

pycuda has no CUDA graphs, so a capture passes its stream's handle to ``cuda.bindings``.  All objects belong to the
device's primary context, which every thread enters by :meth:`Device.current`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lsms_rt.errors import EngineError, MissingDependencyError, OutOfDeviceMemoryError

from .lock import GpuLock

log = logging.getLogger("lsms_rt")
INSTALL = "pip install pycuda cuda-bindings (pycuda is compiled: it needs nvcc on the PATH)"


class CaptureFailed(Exception):
    """A CUDA graph could not be captured; the plan runs without one."""


class Memory:
    """Memory of the device alone."""

    def __init__(self, cuda: Any, size: int) -> None:
        self._memory: Any = cuda.mem_alloc(size)
        self.address = int(self._memory)

    def free(self) -> None:
        """Free the memory while the context is current; pycuda would complain in the garbage collector's thread."""
        self._memory.free()


class Buffer:
    """Pinned host memory and the corresponding device memory.

    They are two, and copied, also where the GPU shares the CPU's memory (a Jetson): it could read pinned memory itself,
    but does not cache it, and a plan reads its inputs many times.
    """

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._cuda = cuda
        self.host: np.ndarray = cuda.pagelocked_empty(shape, dtype)
        self._device = cuda.mem_alloc(max(1, self.host.nbytes))
        self.address = int(self._device)

    def upload(self, stream: Any) -> None:
        """Enqueue the copy to the device."""
        self._cuda.memcpy_htod_async(self._device, self.host, stream)

    def download(self, stream: Any) -> None:
        """Enqueue the copy to the host."""
        self._cuda.memcpy_dtoh_async(self.host, self._device, stream)

    def free(self) -> None:
        """Free both, as :meth:`Memory.free`."""
        base: Any = self.host.base
        self.host = np.empty(0, self.host.dtype)
        try:
            self._device.free()
        finally:
            base.free()


class Graph:
    """An instantiated CUDA graph on one stream."""

    def __init__(self, driver: Any, executable: Any, stream: int) -> None:
        self._driver, self._executable, self._stream = driver, executable, stream

    def launch(self) -> None:
        """Enqueue the graph."""
        _checked(self._driver, self._driver.cuGraphLaunch(self._executable, self._stream), "the launch of a CUDA graph")

    def free(self) -> None:
        """Destroy the graph; EngineError if the driver refuses."""
        _checked(self._driver, self._driver.cuGraphExecDestroy(self._executable), "cuGraphExecDestroy")


# CU_STREAM_NON_BLOCKING: no synchronization with the legacy default stream, which other code may use
NON_BLOCKING = 1
# number of a GPU -> the lock of ``Device.exclusive``, for all engines of the process
_LOCKS: dict[int, GpuLock] = {}


class Device:
    """One GPU; ``integrated`` if it shares the CPU's memory."""

    def __init__(self, index: int, integrated: bool) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise MissingDependencyError(
                f"TensorRT engines need pycuda, which is missing ({error}); {INSTALL}"
            ) from error
        self._cuda, self.integrated = cuda, integrated
        self._lock = _LOCKS.setdefault(index, GpuLock())
        with self._translated():
            cuda.init()
            self._primary = cuda.Device(index).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in this thread; pycuda's errors are translated to this package's."""
        self._primary.push()
        try:
            with self._translated():
                yield
        finally:
            self._cuda.Context.pop()

    def exclusive(self) -> GpuLock:
        """Keep captures apart from all that allocates, frees or loads: hold it over either; runs need no lock.

        While one thread captures a graph, a call that waits for the whole GPU fails in any other (CUDA's errors 900 and
        906), and may spoil the capture (901).  Allocating and freeing may wait, and so may whatever loads code: making
        a context, a plan's first runs.  That may take minutes, so an answer must not wait for it: ``later`` of the lock
        frees without waiting.
        """
        return self._lock

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as error:
            raise OutOfDeviceMemoryError(
                f"there is too little memory for the engine's buffers ({error}); use smaller batches or fewer threads"
            ) from error
        except self._cuda.Error as error:
            raise EngineError(f"the GPU failed ({type(error).__name__}: {error}); restart the process") from error

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory of the device in bytes."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        """Allocate a buffer; OutOfDeviceMemoryError if there is too little memory."""
        # Translated here, so that the caller can free memory and try again.
        with self._translated():
            return Buffer(self._cuda, shape, dtype)

    def scratch(self, size: int) -> Memory:
        """Allocate ``size`` bytes, at least 1, aligned to 256; OutOfDeviceMemoryError if there is too little memory."""
        with self._translated():
            return Memory(self._cuda, size)

    def stream(self) -> Any:
        """Create a stream with ``handle`` and ``synchronize``; the default one cannot be captured."""
        return self._cuda.Stream(NON_BLOCKING)

    def event(self) -> Any:
        """Create an event with ``record(stream)``, ``synchronize()`` and ``time_since(event)`` in ms."""
        return self._cuda.Event()

    def capture(self, stream: Any, enqueue: Callable[[], bool]) -> Graph:
        """Capture the work that ``enqueue`` puts on ``stream`` as a graph; CaptureFailed if that is not possible."""
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise CaptureFailed(f"cuda-bindings is missing ({error}); {INSTALL}") from error
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        graph: Any = None
        try:
            _checked(driver, driver.cuStreamBeginCapture(stream.handle, mode), "cuStreamBeginCapture")
            try:
                enqueued = enqueue()
            finally:
                # A capture that was begun must be ended, or the stream is unusable.
                code, *ended = driver.cuStreamEndCapture(stream.handle)
                graph = ended[0] if code == driver.CUresult.CUDA_SUCCESS else None
            _checked(driver, (code,), "cuStreamEndCapture")
            if not enqueued:
                raise CaptureFailed("the plan could not be enqueued during the capture")
            (executable,) = _checked(driver, driver.cuGraphInstantiate(graph, 0), "cuGraphInstantiate")
            return Graph(driver, executable, stream.handle)
        # TensorRT's bindings raise the latter.
        except (EngineError, RuntimeError) as error:
            raise CaptureFailed(str(error)) from error
        finally:
            if graph is not None:
                _destroy(driver, graph)


def _destroy(driver: Any, graph: Any) -> None:
    """Destroy what a graph was instantiated from; a failure costs a little memory only, so it is logged."""
    try:
        _checked(driver, driver.cuGraphDestroy(graph), "cuGraphDestroy")
    except EngineError as error:
        log.warning("%s", error)


def _checked(driver: Any, answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """Return the results of a call, after its error code was checked."""
    code, *results = answer
    if code != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{what} failed: {code.name}")
    return tuple(results)
