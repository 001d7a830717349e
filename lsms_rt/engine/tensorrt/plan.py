"""A deserialized plan: its tensors, its profiles, and its execution contexts."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lsms_rt.engine.manifest import REBUILD
from lsms_rt.errors import (
    DriverTooOldError,
    EngineInvalidError,
    MachineError,
    OutOfDeviceMemoryError,
    TensorRtVersionError,
    WrongGpuError,
    brief,
)

from .messages import Messages, explain, logger_of
from .tensors import Shape, TensorSpec
from .variant import TensorRtVariant

log = logging.getLogger("lsms_rt")
DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
# Names of ``EngineInvalidityDiagnostics`` (bit masks), the result of RTX's check of a plan -> error.
_INVALID = {
    "VERSION_MISMATCH": TensorRtVersionError,
    "UNSUPPORTED_CC": WrongGpuError,
    "OLD_CUDA_DRIVER": DriverTooOldError,
    "OLD_CUDA_RUNTIME": DriverTooOldError,
    "INSUFFICIENT_GPU_MEMORY": OutOfDeviceMemoryError,
    "MALFORMED_ENGINE": EngineInvalidError,
    "CUDA_ERROR": MachineError,
}


class Plan:
    """A TensorRT engine.  Plans and contexts are made while the device is ``exclusive``.

    A context may be used by one thread at a time.

    Args:
        variant: the library.
        library: its Python module.
        data: the plan.
        what: the file's name in messages.
        host_code: let a version-compatible plan run the code that it contains, on the CPU.
        graphs: let RTX capture CUDA graphs.
        cache: code that RTX compiled for this GPU in an earlier process; empty if there is none.
    """

    def __init__(
        self,
        variant: TensorRtVariant,
        library: Any,
        data: bytes,
        what: str,
        *,
        host_code: bool,
        graphs: bool,
        cache: bytes,
    ) -> None:
        self.what, self._library, self._variant = what, library, variant
        # A lane gives its context memory for its own batch, and not for the largest one.
        self._memory = library.ExecutionContextAllocationStrategy.USER_MANAGED
        self._messages: Messages = logger_of(library).messages
        mark = self._messages.mark()
        try:
            self._runtime = library.Runtime(logger_of(library))
        except TypeError as error:
            # The bindings raise it if the library returned none.
            raise explain(f"{variant.title} failed to initialize", self._messages.errors(mark)) from error
        if host_code:
            self._runtime.engine_host_code_allowed = True
        check_validity(library, self._runtime, data, what)
        mark = self._messages.mark()
        self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise explain(f"{variant.title} rejected {what}", self._messages.errors(mark))
        self.specs = [self._spec(self.engine.get_tensor_name(i)) for i in range(self.engine.num_io_tensors)]
        self.profiles = [self._profile(i) for i in range(self.engine.num_optimization_profiles)]
        self._config: Any = None
        self._cache: Any = None
        if variant.own_graphs:
            self._configure(graphs, cache)

    @property
    def own_graphs(self) -> bool:
        """Return whether the library captures CUDA graphs itself."""
        return self._variant.own_graphs

    @property
    def scratch_bytes(self) -> int:
        """Return the bytes of device memory that a context needs for activations, at the largest batch."""
        return int(self.engine.device_memory_size_v2)

    def context(self) -> Any:
        """Create an execution context without memory for activations; an error says why it failed."""
        mark = self._messages.mark()
        context = self.engine.create_execution_context(self._memory if self._config is None else self._config)
        if context is None:
            message = f"{self._variant.title} could not create an execution context for {self.what}"
            raise explain(message, self._messages.errors(mark))
        return context

    def compiled(self) -> bytes:
        """Return the code that RTX compiled for this GPU, the ``cache`` of the next process; empty if there is none."""
        return b"" if self._cache is None else bytes(self._cache.serialize() or b"")

    def errors(self, mark: int) -> list[str]:
        """Return the errors that the library logged after ``mark``."""
        return self._messages.errors(mark)

    def mark(self) -> int:
        """Return the current position in the library's log."""
        return self._messages.mark()

    def _spec(self, name: str) -> TensorSpec:
        engine, dtype = self.engine, self.engine.get_tensor_dtype(name)
        if dtype.name not in DTYPES:
            raise EngineInvalidError(
                f"{self.what}: {brief(name, 60)} has type {dtype.name}; lsms-rt never builds such engines, {REBUILD}"
            )
        is_input = engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT
        return TensorSpec(name, tuple(engine.get_tensor_shape(name)), np.dtype(DTYPES[dtype.name]), is_input)

    def _profile(self, index: int) -> dict[str, tuple[Shape, Shape, Shape]]:
        shapes = {}
        for spec in self.specs:
            if spec.is_input:
                low, best, high = (tuple(shape) for shape in self.engine.get_tensor_profile_shape(spec.name, index))
                shapes[spec.name] = (low, best, high)
        return shapes

    def _configure(self, graphs: bool, cache: bytes) -> None:
        """Configure RTX, which compiles code when contexts are created, caches it, and captures CUDA graphs itself."""
        library = self._library
        self._config = self.engine.create_runtime_config()
        if self._config is None:
            raise EngineInvalidError(
                f"{self.what}: {self._variant.title} could not create a runtime configuration; {REBUILD}"
            )
        strategy = library.CudaGraphStrategy
        self._config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED
        # A lane has one shape.  By default RTX would run it with slower code that fits all shapes until the code for
        # this one was compiled in the background: other bits later, and none of it in the cache of a short process.
        eager = library.DynamicShapesKernelSpecializationStrategy.EAGER
        self._config.dynamic_shapes_kernel_specialization_strategy = eager
        self._config.set_execution_context_allocation_strategy(self._memory)
        self._cache = self._config.create_runtime_cache()
        if cache and not self._cache.deserialize(cache):
            log.info("the compiled code in the cache is for another GPU, driver or version; compiling again")
        if not self._config.set_runtime_cache(self._cache):
            log.warning("%s: code compiled for this GPU cannot be cached, the next start will be slower", self.what)
            self._cache = None


def check_validity(library: Any, runtime: Any, data: bytes, what: str) -> None:
    """Raise an error if RTX finds the header of a plan invalid; TensorRT has no such check."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, reasons = runtime.get_engine_validity(data[: runtime.engine_header_size])
    if validity != library.EngineValidity.INVALID:
        return
    names = [name for name, value in library.EngineInvalidityDiagnostics.__members__.items() if reasons & int(value)]
    known = next((_INVALID[name] for name in names if name in _INVALID), None)
    if known is not None:
        raise known(f"{what} cannot run here: {', '.join(names)}; {REBUILD}")
