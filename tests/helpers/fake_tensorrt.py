"""A TensorRT and a GPU made of NumPy, for what is around them: who copies when, and what is done with an answer.

``FakeDevice`` keeps host and device memory apart, so that a missing copy is seen; work "runs" when its stream is waited
for, so that a missing wait is seen too.  It knows nothing of CUDA: what it shows is the order of our calls.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from lsms_rt.engine.tensorrt.cuda import CaptureFailed
from lsms_rt.errors import OutOfDeviceMemoryError

# The batch's place in a shape.
STATIC = -1


class FakeStream:
    def __init__(self, device: FakeDevice) -> None:
        self.handle, self.queue, self.calls, self.captured = id(self), [], device.calls, None
        self.device = device

    def put(self, what: str, work: Callable[[], None]) -> None:
        self.device.entered()
        self.calls.append(what)
        (self.queue if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        self.device.entered()
        while self.queue:
            self.queue.pop(0)()


class FakeBuffer:
    def __init__(self, device: FakeDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.host, self.device = np.full(shape, 77, dtype), np.full(shape, 99, dtype)
        self.address = 4096 * (len(device.memory_map) + 1)
        device.memory_map[self.address] = self
        self.freed, self.owner = False, device

    def upload(self, stream: FakeStream) -> None:
        # Pinned memory is read when the copy runs, not when it is requested.
        data = self.host
        stream.put("upload", lambda: self.device.__setitem__(..., data))

    def download(self, stream: FakeStream) -> None:
        stream.put("download", lambda: self.host.__setitem__(..., self.device))

    def free(self) -> None:
        self.owner.entered()
        assert not self.freed
        self.freed = True


class FakeEvent:
    """Its moments count what was put on streams before it: a copy or a launch takes 1 ms."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.moment = device, -1
        self.stream: FakeStream

    def record(self, stream: FakeStream) -> None:
        self.device.entered()
        self.stream, self.moment = stream, len(self.device.calls)

    def synchronize(self) -> None:
        self.stream.synchronize()

    def time_since(self, other: FakeEvent) -> float:
        self.device.entered()
        assert not self.stream.queue, "events of work that is not done"
        return float(self.moment - other.moment)


class FakeDevice:
    """Stands in for ``cuda.Device``."""

    def __init__(self, index: int = 0, integrated: bool = False, capture: str = "") -> None:
        self.index, self.integrated, self.refuse_capture = index, integrated, capture
        self.memory_map: dict[int, FakeBuffer] = {}
        self.streams: dict[int, FakeStream] = {}
        self.calls: list[str] = []
        self.free_bytes, self.buffers_left, self._inside = 1 << 30, 10**6, threading.local()

    @property
    def inside(self) -> int:
        return getattr(self._inside, "depth", 0)

    def entered(self) -> None:
        """Every call of a driver needs the device's context to be the calling thread's."""
        assert self.inside, "a call outside of current()"

    @contextmanager
    def current(self) -> Iterator[None]:
        self._inside.depth = self.inside + 1
        try:
            yield
        finally:
            self._inside.depth = self.inside - 1

    def memory(self) -> tuple[int, int]:
        self.entered()
        return self.free_bytes, 1 << 31

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> FakeBuffer:
        self.entered()
        self.buffers_left -= 1
        if self.buffers_left < 0:
            raise OutOfDeviceMemoryError("there is too little memory for the engine's buffers")
        return FakeBuffer(self, shape, dtype)

    def stream(self) -> FakeStream:
        self.entered()
        stream = FakeStream(self)
        self.streams[stream.handle] = stream
        return stream

    def event(self) -> Any:
        return FakeEvent(self)

    def capture(self, stream: FakeStream, enqueue: Callable[[], bool]) -> Any:
        self.entered()
        assert not stream.queue, "a capture begins on a stream that is done"
        if self.refuse_capture:
            raise CaptureFailed(self.refuse_capture)
        stream.captured = []
        assert enqueue()
        works, stream.captured = stream.captured, None
        self.calls.append("captured")

        def launch() -> None:
            for work in works:
                stream.put("launch", work)

        return SimpleNamespace(launch=launch, free=lambda: self.calls.append("graph freed"))


# Name, shape with -1, FLOAT or HALF or INT64, whether an input.
Tensor = tuple[str, tuple[int, ...], str, bool]


class FakeLibrary:
    """Stands in for ``tensorrt`` or ``tensorrt_rtx``.  ``plans`` maps a plan's bytes to its tensors and function."""

    class ILogger:
        pass

    class TensorIOMode(enum.Enum):
        INPUT, OUTPUT = 1, 2

    class EngineValidity(enum.Enum):
        VALID, INVALID = 0, 2

    class EngineInvalidityDiagnostics(enum.IntEnum):
        VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, OLD_CUDA_RUNTIME = 1, 2, 4, 8
        INSUFFICIENT_GPU_MEMORY, MALFORMED_ENGINE, CUDA_ERROR = 16, 32, 64

    class CudaGraphStrategy(enum.Enum):
        DISABLED, WHOLE_GRAPH_CAPTURE = 0, 1

    def __init__(self, device: FakeDevice, plans: dict[bytes, Any], version: str = "10.3.0.26", most: int = 4) -> None:
        self.device, self.plans, self.__version__, self.most = device, plans, version, most
        # What it logs before it returns None.
        self.says = ""
        self.execute = True
        self.contexts = 0
        self.config: Any = None
        self.caches: list[bytes] = []
        self.takes_caches = True

    def fail(self) -> bool:
        if self.says:
            self.logger.log(SimpleNamespace(name="ERROR"), self.says)
        return bool(self.says)

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        self.runtime = SimpleNamespace(deserialize_cuda_engine=self._deserialize, engine_host_code_allowed=False)
        return self.runtime

    def _deserialize(self, data: bytes) -> Any:
        return None if self.fail() else FakeEngine(self, *self.plans[data])


class FakeEngine:
    def __init__(
        self, library: FakeLibrary, tensors: list[Tensor], compute: Callable[..., dict[str, np.ndarray]]
    ) -> None:
        self.library, self.tensors, self.compute = library, {t[0]: t for t in tensors}, compute
        self.config: Any = None
        self.num_io_tensors, self.num_optimization_profiles, self.device_memory_size_v2 = len(tensors), 1, 1 << 20

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][2])

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.library.TensorIOMode
        return modes.INPUT if self.tensors[name][3] else modes.OUTPUT

    def get_tensor_profile_shape(self, name: str, _: int) -> list[tuple[int, ...]]:
        return [tuple(b if n == STATIC else n for n in self.tensors[name][1]) for b in (1, 2, self.library.most)]

    def create_runtime_config(self) -> Any:
        library = self.library
        cache = SimpleNamespace(
            deserialize=lambda data: library.caches.append(data) or library.takes_caches, serialize=lambda: b"compiled"
        )
        library.config = SimpleNamespace(
            cuda_graph_strategy=None, create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: True
        )
        self.config = library.config
        return self.config

    def create_execution_context(self, config: Any = None) -> Any:
        assert config is self.config
        self.library.device.entered()
        if self.library.fail():
            return None
        self.library.contexts += 1
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return index == 0 and stream in self.engine.library.device.streams

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, t in self.engine.tensors.items() if t[3] and name not in self.shapes]

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        if not engine.library.execute:
            engine.library.fail()
            return False
        memory = engine.library.device.memory_map

        def work() -> None:
            inputs = {n: memory[self.addresses[n]].device for n, t in engine.tensors.items() if t[3]}
            for name, value in engine.compute(**inputs).items():
                memory[self.addresses[name]].device[...] = value

        engine.library.device.streams[stream].put("execute", work)
        return True
