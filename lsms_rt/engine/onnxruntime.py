"""The ONNX Runtime backend: the default on CPU and the reference for other backends; optional on GPU."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lsms_rt.errors import EngineInvalidError, MachineError, MissingDependencyError, brief
from lsms_rt.machine.gpu import Driver, query_driver
from lsms_rt.machine.jetson import Jetson

from .backend import FEATURES, TEXT_INPUTS, OneByOne, SentenceFeatures
from .manifest import EngineDirectory
from .process import Home
from .slice_pool import CLOSED, SlicePool

TEXT_GRAPH, IMAGE_GRAPH = "text.onnx", "image.onnx"
INPUTS = {TEXT_GRAPH: TEXT_INPUTS, IMAGE_GRAPH: ("image", "mask", *FEATURES)}


class OnnxRuntimeBackend(OneByOne):
    """Runs an engine of ONNX graphs in two inference sessions.

    On a CPU one slice is computed by all threads, but several slices by one thread each, so threads never synchronize,
    and the data of a slice stays in a core's cache (measured on two cores: a tenth faster per slice, while a batch in
    one call is a tenth slower).

    Args:
        engine: the engine directory.
        threads: CPU threads per slice; None lets the library choose.
        kind: "cpu", "cuda" or "tensorrt" (the latter two need the package onnxruntime-gpu); None uses CUDA if it is
            available, and logs the choice.
        index: number of the GPU.
    """

    def __init__(self, engine: EngineDirectory, threads: int | None, kind: str | None = None, index: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("this engine needs ONNX Runtime; pip install onnxruntime") from error
        self._home = Home(self)
        self.version: str = onnxruntime.__version__
        self.providers = choose_providers(onnxruntime, kind, index)

        def session(name: str, threads: int | None) -> Any:
            return _session(onnxruntime, engine, name, threads, self.providers)

        self._sessions = {name: session(name, threads) for name in INPUTS}
        count = threads or cpu_count()
        self._pool: SlicePool | None = None
        if self.providers == ["CPUExecutionProvider"] and count > 1:
            self._pool = SlicePool(count, lambda: session(IMAGE_GRAPH, 1))

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        outputs = _run(self._session(TEXT_GRAPH), TEXT_GRAPH, list(FEATURES), {"tokens": tokens, "mask": mask})
        return SentenceFeatures(dict(zip(FEATURES, outputs, strict=True)), mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        if len(images) == 1 or self._pool is None:
            return self._logits(self._session(IMAGE_GRAPH), images, text)
        return next(self.segment_many([images], text))

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        if self._pool is None:
            return super().segment_many(batches, text)
        # raises if the engine has been closed
        self._session(IMAGE_GRAPH)
        return self._pool.run(batches, lambda session, image: self._logits(session, image, text))

    def close(self) -> None:
        if not self._home.here:
            return
        self._sessions = {}
        if self._pool is not None:
            self._pool.close()

    def _logits(self, session: Any, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        feeds = {name: _rows(array, len(images)) for name, array in (text.arrays | {"mask": text.mask}).items()}
        logits: np.ndarray = _run(session, IMAGE_GRAPH, ["logits"], feeds | {"image": images})[0]
        return logits[:, 0]

    def _session(self, graph: str) -> Any:
        self._home.check()
        session = self._sessions.get(graph)
        if session is None:
            raise EngineInvalidError(CLOSED)
        return session


def cpu_count() -> int:
    """Return the number of CPUs that this process may use; in a container it is below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(session: Any, graph: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        result: list[np.ndarray] = session.run(outputs, feeds)
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
    on_gpu = {"device_id": index}
    return [name if name.startswith("CPU") else (name, on_gpu) for name in PROVIDERS[kind]]


def _session(ort: Any, engine: EngineDirectory, name: str, threads: int | None, providers: list[Any]) -> Any:
    options = ort.SessionOptions()
    # Never its own format, which it would recognize by the content.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # errors only; they are raised as well
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if name == TEXT_GRAPH:
        # Each session has its own threads.  Those of the text graph would keep spinning afterwards, on the cores that
        # the image graph then needs: 98 instead of 67 ms for both, on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(engine.read(name), options, providers=providers, enable_fallback=0)
    except (ort.capi.onnxruntime_pybind11_state.Fail, RuntimeError, ValueError, *_load_errors(ort)) as error:
        what = f"ONNX Runtime {ort.__version__} cannot load {engine.path / name}: {brief(error)}"
        raise EngineInvalidError(what) from error
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    # The library silently continues without a provider that fails.
    if session.get_providers()[0] != first:
        raise MachineError(f"ONNX Runtime's {first} failed to initialize; see lsms-rt doctor, or use device='cpu'")
    inputs = {value.name for value in session.get_inputs()}
    if inputs != set(INPUTS[name]):
        raise EngineInvalidError(
            f"{engine.path / name} has inputs {brief(sorted(inputs), 200)}, not {', '.join(sorted(INPUTS[name]))}; "
            f"rebuild the engine: {engine.manifest.rebuild}"
        )
    _check_shapes(session, engine, name)
    return session


def _check_shapes(session: Any, engine: EngineDirectory, name: str) -> None:
    """Compare the sizes of a graph's inputs with the manifest's, where the graph states them."""
    manifest = engine.manifest
    image = (manifest.channels, manifest.image_size, manifest.image_size)
    tokens = (manifest.max_tokens,)
    for value in session.get_inputs():
        expected = {"image": image, "tokens": tokens, "mask": tokens}.get(value.name)
        if expected is None:
            continue
        # After the batch.  Sizes that are not fixed have names.
        sizes = value.shape[1:]
        fits = len(sizes) == len(expected) and all(
            size == wanted or not isinstance(size, int) for size, wanted in zip(sizes, expected, strict=True)
        )
        if not fits:
            raise EngineInvalidError(
                f"{engine.path / name}: input {value.name} has shape {brief(value.shape, 100)}, the manifest says "
                f"{('batch', *expected)}; rebuild the engine: {manifest.rebuild}"
            )


def _load_errors(ort: Any) -> tuple[type[Exception], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    names = ("InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NotImplemented", "NoSuchFile", "NoModel")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _rows(array: np.ndarray, batch: int) -> np.ndarray:
    return array if batch == len(array) else np.repeat(array, batch, axis=0)


def open_engine(
    engine: EngineDirectory, threads: int | None, kind: str | None, index: int, cuda_graph: bool
) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(engine, threads, kind, index)


def library_version(name: str) -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def gpu_index(kind: str | None, index: int) -> int | None:
    import onnxruntime

    return None if choose_providers(onnxruntime, kind, index) == ["CPUExecutionProvider"] else index


def diagnose(name: str, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    import onnxruntime

    kinds = {providers[0]: kind for kind, providers in PROVIDERS.items()}
    compiled_in = [kinds[provider] for provider in onnxruntime.get_available_providers() if provider in kinds]
    devices = compiled_in if driver.problem is None else ["cpu"]
    builds = all(importlib.util.find_spec(package) for package in ("torch", "onnx", "onnxscript", "transformers"))
    return {"version": onnxruntime.__version__, "builds": builds, "runs": True, "devices": devices} | (
        {} if builds else {"missing": "the build side", "fix": "pip install 'lsms-rt[build]'"}
    )
