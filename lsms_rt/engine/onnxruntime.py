"""ONNX Runtime: on the CPU the embedded default, and the yardstick of the other backends; on a GPU where it can."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..errors import EngineInvalid, EnvironmentProblem
from ..gpu import look
from .backend import FEATURES, TEXT_INPUTS, OneByOne, SentenceFeatures
from .manifest import EngineDirectory

TEXT_GRAPH, IMAGE_GRAPH = "text.onnx", "image.onnx"


class OnnxRuntimeBackend(OneByOne):
    """Two inference sessions; ``run`` of a session is thread-safe.

    ``kind`` is "cpu", "cuda" or "tensorrt", whose execution providers are in the package onnxruntime-gpu; None takes
    CUDA where it is, and logs it.  GPU number ``index``.
    """

    def __init__(self, engine: EngineDirectory, threads: int | None, kind: str | None = None, index: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EnvironmentProblem("this engine needs ONNX Runtime; pip install onnxruntime") from error
        self.version: str = onnxruntime.__version__
        self.providers = _providers(onnxruntime, kind, index)
        self._sessions = {
            name: _session(onnxruntime, engine, name, wanted, threads, self.providers)
            for name, wanted in ((TEXT_GRAPH, TEXT_INPUTS), (IMAGE_GRAPH, ("image", "mask", *FEATURES)))
        }

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        outputs = self._run(TEXT_GRAPH, list(FEATURES), {"tokens": tokens, "mask": mask})
        return SentenceFeatures(dict(zip(FEATURES, outputs, strict=True)), mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        batch = len(images)
        feeds = {name: _rows(array, batch) for name, array in (text.arrays | {"mask": text.mask}).items()}
        logits: np.ndarray = self._run(IMAGE_GRAPH, ["logits"], feeds | {"image": images})[0]
        return logits[:, 0]

    def close(self) -> None:
        self._sessions = {}

    def _run(self, graph: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        session = self._sessions.get(graph)
        if session is None:
            raise EngineInvalid("this engine has been closed; open a new Segmenter")
        try:
            result: list[np.ndarray] = session.run(outputs, feeds)
        except Exception as error:  # the library's own exceptions have no common public base
            raise EngineInvalid(f"ONNX Runtime could not run {graph}: {error}") from error
        return result


PROVIDERS = {  # of ONNX Runtime, the first that runs an operator takes it
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
log = logging.getLogger("lsms_rt")


def _providers(ort: Any, kind: str | None, index: int) -> list[Any]:
    """What a session is opened with.  Raises :class:`EnvironmentProblem` where the package has no such provider."""
    there = ort.get_available_providers()
    if kind is None:  # what the package was compiled with says nothing of this machine
        kind = "cuda" if "CUDAExecutionProvider" in there and look().problem is None else "cpu"
        log.info("ONNX Runtime on %s", kind)
    missing = [name for name in PROVIDERS[kind] if name not in there]
    if missing:
        raise EnvironmentProblem(
            f"device {kind!r}: this ONNX Runtime has no {missing[0]}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    on_gpu = {"device_id": index}
    return [name if name.startswith("CPU") else (name, on_gpu) for name in PROVIDERS[kind]]


def _session(
    ort: Any, engine: EngineDirectory, name: str, inputs: tuple[str, ...], threads: int | None, providers: list[Any]
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    if name == TEXT_GRAPH:
        # Each session has threads of its own.  Those of the text graph would go on spinning after it, on the cores that
        # the image graph then needs: 98 instead of 67 ms for both, on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(engine.read(name), options, providers=providers, enable_fallback=0)
    except (ort.capi.onnxruntime_pybind11_state.Fail, RuntimeError, ValueError, *_load_errors(ort)) as error:
        raise EngineInvalid(f"ONNX Runtime {ort.__version__} cannot load {engine.path / name}: {error}") from error
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != first:  # the library goes on without a provider that does not start
        raise EnvironmentProblem(
            f"ONNX Runtime's {first} does not start here; see lsms-rt doctor, or take device='cpu'"
        )
    found = {value.name for value in session.get_inputs()}
    if found != set(inputs):
        raise EngineInvalid(
            f"{engine.path / name} has inputs {sorted(found)}, not {sorted(inputs)}; build the engine again"
        )
    return session


def _load_errors(ort: Any) -> tuple[type[Exception], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    names = ("InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NotImplemented", "NoSuchFile", "NoModel")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _rows(array: np.ndarray, batch: int) -> np.ndarray:
    return array if batch == len(array) else np.repeat(array, batch, axis=0)
