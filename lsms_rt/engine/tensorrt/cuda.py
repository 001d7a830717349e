"""Calls of the CUDA driver: memory, streams and events by pycuda, CUDA graphs by cuda-bindings.

pycuda has no CUDA graphs, so a capture passes its stream's handle to ``cuda.bindings``.  All objects belong to the
device's primary context, which every thread enters by :meth:`Device.current`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lsms_rt.errors import EngineError, MissingDependencyError, OutOfDeviceMemoryError

INSTALL = "pip install pycuda cuda-bindings (pycuda is compiled: it needs nvcc on the PATH)"


class CaptureFailed(Exception):
    """A CUDA graph could not be captured; the plan runs without one."""


class Buffer:
    """Pinned host memory and the corresponding device memory.

    If the GPU shares the CPU's memory (a Jetson), both are the same: mapped, and never copied.
    """

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype, mapped: bool) -> None:
        self._cuda = cuda
        flags = cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        self.host: np.ndarray = cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._device = None if mapped else cuda.mem_alloc(max(1, self.host.nbytes))
        base: Any = self.host.base
        self.address = int(base.get_device_pointer() if self._device is None else self._device)

    def upload(self, stream: Any) -> None:
        """Enqueue the copy to the device."""
        if self._device is not None:
            self._cuda.memcpy_htod_async(self._device, self.host, stream)

    def download(self, stream: Any) -> None:
        """Enqueue the copy to the host."""
        if self._device is not None:
            self._cuda.memcpy_dtoh_async(self.host, self._device, stream)

    def free(self) -> None:
        """Free the memory while the context is current; pycuda would complain in the garbage collector's thread."""
        if self._device is not None:
            self._device.free()
            self._device = None
        base: Any = self.host.base
        self.host = np.empty(0, self.host.dtype)
        base.free()


class Graph:
    """An instantiated CUDA graph on one stream."""

    def __init__(self, driver: Any, executable: Any, stream: int) -> None:
        self._driver, self._executable, self._stream = driver, executable, stream

    def launch(self) -> None:
        """Enqueue the graph."""
        _checked(self._driver, self._driver.cuGraphLaunch(self._executable, self._stream), "the launch of a CUDA graph")

    def free(self) -> None:
        """Destroy the graph."""
        self._driver.cuGraphExecDestroy(self._executable)


# CU_STREAM_NON_BLOCKING: no synchronization with the legacy default stream, which other code may use
NON_BLOCKING = 1


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

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as error:
            raise OutOfDeviceMemoryError(
                f"there is too little memory for the engine's buffers ({error}); rebuild it with a smaller "
                "--max-batch, or use fewer threads"
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
            return Buffer(self._cuda, shape, dtype, self.integrated)

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
        problem, graph = "", None
        try:
            _checked(driver, driver.cuStreamBeginCapture(stream.handle, mode), "cuStreamBeginCapture")
            try:
                enqueued = enqueue()
            finally:
                # A capture that was begun must be ended, or the stream is unusable.
                ended = driver.cuStreamEndCapture(stream.handle)
            (graph,) = _checked(driver, ended, "cuStreamEndCapture")
            if not enqueued:
                raise CaptureFailed("the plan could not be enqueued during the capture")
            (executable,) = _checked(driver, driver.cuGraphInstantiate(graph, 0), "cuGraphInstantiate")
            return Graph(driver, executable, stream.handle)
        except EngineError as error:
            problem = str(error)
        finally:
            if graph is not None:
                driver.cuGraphDestroy(graph)
        raise CaptureFailed(problem)


def _checked(driver: Any, answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """Return the results of a call, after its error code was checked."""
    code, *results = answer
    if code != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{what} failed: {code.name}")
    return tuple(results)
