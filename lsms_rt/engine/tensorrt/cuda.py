"""The driver calls: memory, streams and events by pycuda, CUDA graphs by cuda-bindings.  Not run on a GPU yet.

pycuda has no CUDA graphs, so a capture takes its stream's handle to ``cuda.bindings``.  All objects belong to the
device's primary context, which every thread enters by :meth:`Device.current`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lsms_rt.errors import EngineError, MachineError, OutOfDeviceMemoryError

INSTALL = "pip install pycuda cuda-bindings (pycuda is compiled: it needs nvcc on the PATH)"


class CaptureFailed(Exception):
    """A CUDA graph could not be captured; the work runs without."""


class Buffer:
    """Pinned host memory and its twin on the device.

    Where the GPU shares the CPU's memory (a Jetson), both are one: mapped, and never copied.
    """

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype, mapped: bool) -> None:
        self._cuda = cuda
        flags = cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        self.host: np.ndarray = cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._device = None if mapped else cuda.mem_alloc(max(1, self.host.nbytes))
        base: Any = self.host.base
        self.address = int(base.get_device_pointer() if self._device is None else self._device)

    def upload(self, stream: Any) -> None:
        if self._device is not None:
            self._cuda.memcpy_htod_async(self._device, self.host, stream)

    def download(self, stream: Any) -> None:
        if self._device is not None:
            self._cuda.memcpy_dtoh_async(self.host, self._device, stream)

    def free(self) -> None:
        """Now, while the context is current: left to the garbage collector, pycuda would complain of another thread."""
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
        _checked(self._driver, self._driver.cuGraphLaunch(self._executable, self._stream), "a CUDA graph's launch")

    def free(self) -> None:
        self._driver.cuGraphExecDestroy(self._executable)


NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the legacy default stream, which others may use, does not wait for ours


class Device:
    """One GPU.  ``integrated``: it shares the CPU's memory."""

    def __init__(self, index: int, integrated: bool) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise MachineError(f"engines of TensorRT need pycuda, which is missing ({error}); {INSTALL}") from error
        self._cuda, self.integrated = cuda, integrated
        with self._translated():
            cuda.init()
            self._primary = cuda.Device(index).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device the calling thread's; pycuda's errors inside come out as this package's."""
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
                f"there is too little memory for the engine's buffers ({error}); take a smaller --max-batch, or fewer "
                "threads"
            ) from error
        except self._cuda.Error as error:
            raise EngineError(f"the GPU failed ({type(error).__name__}: {error}); start the process again") from error

    def memory(self) -> tuple[int, int]:
        """Free and all bytes of the device's memory."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        with self._translated():  # here, so that who runs out of memory can give some up and try again
            return Buffer(self._cuda, shape, dtype, self.integrated)

    def stream(self) -> Any:
        """A stream of its own, with ``handle`` and ``synchronize``; never the default one, which cannot be captured."""
        return self._cuda.Stream(NON_BLOCKING)

    def event(self) -> Any:
        """With ``record(stream)``, ``synchronize`` and ``time_since(event)`` in ms."""
        return self._cuda.Event()

    def capture(self, stream: Any, enqueue: Callable[[], bool]) -> Graph:
        """The graph of what ``enqueue`` puts on ``stream``.  Raises :class:`CaptureFailed`; nothing is left behind."""
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
            finally:  # a capture that was begun must be ended, or the stream is lost
                ended = driver.cuStreamEndCapture(stream.handle)
            (graph,) = _checked(driver, ended, "cuStreamEndCapture")
            if not enqueued:
                raise CaptureFailed("the engine refused to be enqueued while it is captured")
            (executable,) = _checked(driver, driver.cuGraphInstantiate(graph, 0), "cuGraphInstantiate")
            return Graph(driver, executable, stream.handle)
        except EngineError as error:
            problem = str(error)
        finally:
            if graph is not None:
                driver.cuGraphDestroy(graph)
        raise CaptureFailed(problem)


def _checked(driver: Any, answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """The results behind a call's error code."""
    code, *results = answer
    if code != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{what} failed: {code.name}")
    return tuple(results)
