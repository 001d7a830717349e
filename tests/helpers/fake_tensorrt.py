"""TensorRT's bindings, over a GPU made of NumPy (``fake_cuda``): what they answer, and what must be done before."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeCudaError, FakeDevice

from lsms_rt.engine.tensorrt.cuda import CaptureFailed

# The batch's place in a shape.
STATIC = -1
# Bytes of scratch memory per item of a batch.
SCRATCH = 1 << 18

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

    class DynamicShapesKernelSpecializationStrategy(enum.Enum):
        LAZY, EAGER, NONE = 0, 1, 2

    class ExecutionContextAllocationStrategy(enum.Enum):
        STATIC, ON_PROFILE_CHANGE, USER_MANAGED = 0, 1, 2

    def __init__(self, device: FakeDevice, plans: dict[bytes, Any], version: str = "10.3.0.26", most: int = 4) -> None:
        self.device, self.plans, self.__version__, self.most = device, plans, version, most
        # What it logs before it returns None.
        self.says = ""
        self.execute = True
        self.contexts = 0
        self.config: Any = None
        self.caches: list[bytes] = []
        self.takes_caches = True
        # Its first runs use other code, and so give other bits.
        self.unsteady_runs = 0
        # What the bindings raise instead of an answer.
        self.raises = ""
        self.capturable = True

    def fail(self) -> bool:
        if self.says:
            self.logger.log(SimpleNamespace(name="ERROR"), self.says)
        return bool(self.says)

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        self.runtime = SimpleNamespace(deserialize_cuda_engine=self._deserialize, engine_host_code_allowed=False)
        return self.runtime

    def _deserialize(self, data: bytes) -> Any:
        return None if self.fails() else FakeEngine(self, *self.plans[data])

    def fails(self) -> bool:
        """Whether a call that loads code answers None, with a line in the log."""
        try:
            self.device.waits_for_all("cudaDeviceSynchronize")
        except FakeCudaError as error:
            self.logger.log(SimpleNamespace(name="ERROR"), f"Cuda Runtime ({error})")
            return True
        return self.fail()


class FakeEngine:
    def __init__(
        self, library: FakeLibrary, tensors: list[Tensor], compute: Callable[..., dict[str, np.ndarray]]
    ) -> None:
        self.library, self.tensors, self.compute = library, {t[0]: t for t in tensors}, compute
        self.config: Any = None
        self.num_io_tensors, self.num_optimization_profiles = len(tensors), 1
        self.device_memory_size_v2 = SCRATCH * library.most

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
            cuda_graph_strategy=None, dynamic_shapes_kernel_specialization_strategy=None,
            create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: True,
            set_execution_context_allocation_strategy=lambda given: setattr(library.config, "memory", given),
        )  # fmt: skip
        self.config = library.config
        return self.config

    def create_execution_context(self, given: Any) -> Any:
        strategy = self.library.ExecutionContextAllocationStrategy
        assert given is self.config or (self.config is None and isinstance(given, strategy)), "no such overload"
        assert (given if self.config is None else self.config.memory) is strategy.USER_MANAGED
        if self.library.fails():
            return None
        self.library.contexts += 1
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.library, self.device = engine, engine.library, engine.library.device
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: Any = None
        self.runs, self.failed_capture = 0, False

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return index == 0 and stream in self.device.streams

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if not isinstance(address, int):
            raise TypeError("set_tensor_address(): incompatible function arguments")
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        if self.library.raises:
            raise RuntimeError(self.library.raises)
        return [name for name, t in self.engine.tensors.items() if t[3] and name not in self.shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        return 0 if self.infer_shapes() else SCRATCH * max(shape[0] for shape in self.shapes.values())

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = self.device.memory_map[address]
        assert self.memory.size == size and size >= self.update_device_memory_size_for_shapes()

    def is_stream_capturable(self, stream: int) -> bool:
        return self.library.capturable and stream in self.device.streams

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue; the first run allocates, and the second one captures where the library does so."""
        if not self.library.execute or self.failed_capture or set(self.addresses) != set(self.engine.tensors):
            self.library.fail()
            return False
        capturing, self.runs = self.device.streams[stream].captured is not None, self.runs + 1
        try:
            if self.runs == 1:
                self.device.waits_for_all("cudaMalloc")
            strategies, config = self.library.CudaGraphStrategy, self.engine.config
            if self.runs == 2 and config and config.cuda_graph_strategy is strategies.WHOLE_GRAPH_CAPTURE:
                with self.device.captures():
                    pass
        except (FakeCudaError, CaptureFailed) as error:
            self.library.logger.log(SimpleNamespace(name="ERROR"), f"Cuda Runtime ({error})")
            return False
        # Such a context is not to be used again.
        self.failed_capture = capturing and bool(self.device.refuse_capture)
        self._put(self.device.streams[stream])
        return True

    def _put(self, stream: Any) -> None:
        """Put the work on the stream, with the addresses of now."""
        buffers = {name: self.device.memory_map[address] for name, address in self.addresses.items()}
        wrong = 1e-3 * max(0, self.library.unsteady_runs - self.runs + 1)

        def work() -> None:
            tensors = self.engine.tensors
            inputs = {name: buffers[name].device for name in tensors if tensors[name][3]}
            for name, value in self.engine.compute(**inputs).items():
                buffers[name].device[...] = value + wrong

        stream.put("execute", work, self.memory, *buffers.values())
