"""A deserialized plan: its tensors, its profiles, and new execution contexts of it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np

from lsms_rt.errors import (
    DriverTooOldError,
    EngineInvalidError,
    MachineError,
    OutOfDeviceMemoryError,
    TensorRtVersionError,
    WrongGpuError,
)

from .header import LENGTH
from .messages import Messages, explain, logger_of
from .tensors import Shape, TensorSpec
from .variant import TensorRtVariant

log = logging.getLogger("lsms_rt")
DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
# What RTX's check of a plan finds, as the names of ``EngineInvalidityDiagnostics``, whose values are masks: 1, 2, 4 ...
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
    """An engine of TensorRT.  Contexts may be made from several threads, and each serves one thread at a time."""

    def __init__(
        self, variant: TensorRtVariant, library: Any, data: bytes, what: str, *, host_code: bool, graphs: bool, cache: bytes
    ) -> None:
        """``host_code`` lets a version-compatible plan run the code that it carries; its digest has been checked."""
        self.what, self._library, self._flavour = what, library, variant
        self._messages: Messages = logger_of(library).messages
        self._lock = threading.Lock()
        mark = self._messages.mark()
        try:
            self._runtime = library.Runtime(logger_of(library))
        except TypeError as error:  # how the bindings say that the library made none
            raise explain(f"{variant.title} does not start", self._messages.errors(mark)) from error
        if host_code:
            self._runtime.engine_host_code_allowed = True
        check_validity(library, self._runtime, data, what)
        mark = self._messages.mark()
        self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise explain(f"{variant.title} refuses {what}", self._messages.errors(mark))
        self.specs = [self._spec(self.engine.get_tensor_name(i)) for i in range(self.engine.num_io_tensors)]
        self.profiles = [self._profile(i) for i in range(self.engine.num_optimization_profiles)]
        self._config: Any = None
        self._cache: Any = None
        if variant.own_graphs:
            self._configure(graphs, cache)

    @property
    def scratch_bytes(self) -> int:
        """Device memory that one context takes for activations."""
        return int(self.engine.device_memory_size_v2)

    def context(self) -> Any:
        """A new execution context.  Raises an error that says why there is none."""
        with self._lock:
            mark = self._messages.mark()
            context = self.engine.create_execution_context(*([] if self._config is None else [self._config]))
            if context is None:
                raise explain(f"{self._flavour.title} makes no context of {self.what}", self._messages.errors(mark))
            return context

    def compiled(self) -> bytes:
        """What RTX compiled for this GPU so far, to be given to the next process; b"" where there is nothing such."""
        return b"" if self._cache is None else bytes(self._cache.serialize() or b"")

    def said(self, mark: int) -> list[str]:
        return self._messages.errors(mark)

    def mark(self) -> int:
        return self._messages.mark()

    def _spec(self, name: str) -> TensorSpec:
        engine, dtype = self.engine, self.engine.get_tensor_dtype(name)
        if dtype.name not in DTYPES:
            raise EngineInvalidError(f"{self.what}: {name} is of type {dtype.name}; lsms-rt builds none such")
        is_input = engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT
        return TensorSpec(name, tuple(engine.get_tensor_shape(name)), np.dtype(DTYPES[dtype.name]), is_input)

    def _profile(self, index: int) -> dict[str, tuple[Shape, Shape, Shape]]:
        found = {}
        for spec in self.specs:
            if spec.is_input:
                low, best, high = (tuple(shape) for shape in self.engine.get_tensor_profile_shape(spec.name, index))
                found[spec.name] = (low, best, high)
        return found

    def _configure(self, graphs: bool, cache: bytes) -> None:
        """RTX compiles for the GPU as contexts are made, which a cache spares the next process; it captures itself."""
        library = self._library
        self._config = self.engine.create_runtime_config()
        if self._config is None:
            raise EngineInvalidError(f"{self.what}: {self._flavour.title} makes no runtime configuration")
        strategy = library.CudaGraphStrategy
        self._config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED
        self._cache = self._config.create_runtime_cache()
        if cache and not self._cache.deserialize(cache):
            log.info("what was compiled before is for another GPU, driver or version; compiling again")
        if not self._config.set_runtime_cache(self._cache):
            log.warning("%s: what is compiled for this GPU cannot be kept", self.what)
            self._cache = None


def check_validity(library: Any, runtime: Any, data: bytes, what: str) -> None:
    """RTX judges a plan by its header: raise what it finds.  TensorRT has no such call."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, found = runtime.get_engine_validity(data[:LENGTH])
    if validity != library.EngineValidity.INVALID:
        return
    names = [name for name, value in library.EngineInvalidityDiagnostics.__members__.items() if found & int(value)]
    known = next((_INVALID[name] for name in names if name in _INVALID), None)
    if known is not None:
        raise known(f"{what} cannot run here: {', '.join(names)}; build it again: lsms-rt build-engine")
