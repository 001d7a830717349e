"""The ONNX Runtime backend: the default on CPU and the reference for other backends; optional on GPU."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lsms_rt.errors import EngineInvalidError, MachineError, MissingDependencyError, brief
from lsms_rt.machine.cpu import cpu_count
from lsms_rt.machine.gpu import Driver, query_driver
from lsms_rt.machine.jetson import Jetson

from .graph_backend import (
    BUILD,
    IMAGE_GRAPH,
    INPUTS,
    OUTPUTS,
    TEXT_GRAPH,
    GraphBackend,
    Run,
    can_build,
    check_inputs,
)
from .manifest import EngineDirectory
from .slice_pool import SlicePool


class OnnxRuntimeBackend(GraphBackend):
    """Runs an engine of ONNX graphs in two inference sessions.

    Args:
        engine: the engine directory.
        threads: CPU threads per slice; None lets the library choose, where this process may use all cores.
        kind: "cpu", "cuda" or "tensorrt" (the latter two need the package onnxruntime-gpu); None uses CUDA if it is
            available, and logs the choice.
        index: number of the GPU.
        shared: graphs that another backend of the same kind has opened, by name; the others are opened here.
    """

    def __init__(
        self,
        engine: EngineDirectory,
        threads: int | None,
        kind: str | None = None,
        index: int = 0,
        shared: Mapping[str, Run] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("this engine needs ONNX Runtime; pip install onnxruntime") from error
        self.version: str = onnxruntime.__version__
        self.providers = choose_providers(onnxruntime, kind, index)

        def opened(name: str, threads: int | None) -> Run:
            return functools.partial(_run, _session(onnxruntime, engine, name, threads, self.providers), name)

        open_already = shared or {}
        graphs = {name: open_already.get(name) or opened(name, threads) for name in INPUTS}
        count, pool = threads or cpu_count(), None
        if self.providers == ["CPUExecutionProvider"] and count > 1:
            pool = SlicePool(count, lambda: opened(IMAGE_GRAPH, 1))
        super().__init__(graphs, pool)

    @property
    def device(self) -> str:
        first = self.providers[0]
        return super().device if isinstance(first, str) else f"GPU {first[1]['device_id']} by {first[0]}"


def _run(session: Any, graph: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        result: list[np.ndarray] = session.run(list(OUTPUTS[graph]), feeds)
    except Exception as error:
        # the library's exceptions have no common public base class
        raise EngineInvalidError(f"ONNX Runtime could not run {graph}: {brief(error)}") from error
    return result


# execution providers; each operator runs on the first one that supports it
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
log = logging.getLogger("lsms_rt")


def choose_providers(ort: Any, kind: str | None, index: int) -> list[Any]:
    """Return the execution providers for a kind of device; MachineError if the package does not include them."""
    available = ort.get_available_providers()
    # The package may include CUDA on a machine without a GPU.
    if kind is None:
        kind = "cuda" if "CUDAExecutionProvider" in available and query_driver().problem is None else "cpu"
        log.info("ONNX Runtime on %s", kind)
    missing = [name for name in PROVIDERS[kind] if name not in available]
    if missing:
        raise MachineError(
            f"device {kind!r}: this ONNX Runtime has no {missing[0]}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    # TF32 is turned off: fp32 is fp32, as on other backends.
    options = {
        "CUDAExecutionProvider": {"device_id": index, "use_tf32": 0},
        "TensorrtExecutionProvider": {"device_id": index},
    }
    return [(name, options[name]) if name in options else name for name in PROVIDERS[kind]]


def _session(ort: Any, engine: EngineDirectory, name: str, threads: int | None, providers: list[Any]) -> Any:
    options = ort.SessionOptions()
    # Never its own format, which it would recognize by the content.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # errors only; they are raised as well
    options.log_severity_level = 3
    if threads is None and (cores := cpu_count()) < (os.cpu_count() or 1):
        # It would start one for each core of the machine and bind it there, where this process may not run.
        threads = cores
    if threads is not None:
        options.intra_op_num_threads = threads
    if name == TEXT_GRAPH:
        # Each session has its own threads.  Those of the text graph would keep spinning afterwards, on the cores that
        # the image graph then needs: 98 instead of 67 ms for both, on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Threads that spin after a slice would keep a core from whoever takes the answer: a server, or its client.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = ort.InferenceSession(engine.read(name), options, providers=providers, enable_fallback=0)
    except (ort.capi.onnxruntime_pybind11_state.Fail, RuntimeError, ValueError, *_load_errors(ort)) as error:
        what = f"ONNX Runtime {ort.__version__} cannot load {engine.path / name}: {brief(error)}"
        raise EngineInvalidError(what) from error
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    # The library silently continues without a provider that fails.
    if session.get_providers()[0] != first:
        raise MachineError(f"ONNX Runtime's {first} failed to initialize; see lsms-rt doctor, or use device='cpu'")
    check_inputs(engine, name, {value.name: value.shape for value in session.get_inputs()})
    return session


def _load_errors(ort: Any) -> tuple[type[Exception], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    names = ("InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NotImplemented", "NoSuchFile", "NoModel")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def open_engine(
    engine: EngineDirectory, threads: int | None, kind: str | None, index: int, cuda_graph: bool
) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(engine, threads, kind, index)


def library_version(name: str) -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def check_machine(precision: str, rest: str | None) -> None:
    """Every one runs everywhere."""


def gpu_index(kind: str | None, index: int) -> int | None:
    import onnxruntime

    return None if choose_providers(onnxruntime, kind, index) == ["CPUExecutionProvider"] else index


def diagnose(name: str, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    import onnxruntime

    kinds = {providers[0]: kind for kind, providers in PROVIDERS.items()}
    compiled_in = [kinds[provider] for provider in onnxruntime.get_available_providers() if provider in kinds]
    devices = compiled_in if driver.problem is None else ["cpu"]
    builds = can_build()
    return {"version": onnxruntime.__version__, "builds": builds, "runs": True, "devices": devices} | (
        {} if builds else {"missing": "the build side", "fix": BUILD}
    )
