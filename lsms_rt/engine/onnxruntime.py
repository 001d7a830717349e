"""ONNX Runtime: on the CPU the embedded default, and the yardstick of the other backends; on a GPU where it can."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from lsms_rt.errors import EngineInvalidError, MachineError, MissingDependencyError, brief
from lsms_rt.machine.gpu import Driver, look
from lsms_rt.machine.jetson import Jetson

from .backend import FEATURES, TEXT_INPUTS, OneByOne, SentenceFeatures
from .manifest import EngineDirectory

TEXT_GRAPH, IMAGE_GRAPH = "text.onnx", "image.onnx"
CLOSED = "this engine has been closed; open a new Segmenter"
INPUTS = {TEXT_GRAPH: TEXT_INPUTS, IMAGE_GRAPH: ("image", "mask", *FEATURES)}


class OnnxRuntimeBackend(OneByOne):
    """Two inference sessions; ``run`` of a session is thread-safe.

    On a CPU one slice is computed by all threads, and several by one thread each: nothing waits for anything then, and
    what a slice needs stays in a core's cache (measured on two cores: a tenth faster a slice, where a batch in one
    call is a tenth slower).

    ``kind`` is "cpu", "cuda" or "tensorrt", whose execution providers are in the package onnxruntime-gpu; None takes
    CUDA where it is, and logs it.  GPU number ``index``.
    """

    def __init__(self, engine: EngineDirectory, threads: int | None, kind: str | None = None, index: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("this engine needs ONNX Runtime; pip install onnxruntime") from error
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
        self._session(IMAGE_GRAPH)  # refuses a closed engine
        return self._pool.run(batches, lambda session, image: self._logits(session, image, text))

    def close(self) -> None:
        self._sessions = {}
        if self._pool is not None:
            self._pool.close()

    def _logits(self, session: Any, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        feeds = {name: _rows(array, len(images)) for name, array in (text.arrays | {"mask": text.mask}).items()}
        logits: np.ndarray = _run(session, IMAGE_GRAPH, ["logits"], feeds | {"image": images})[0]
        return logits[:, 0]

    def _session(self, graph: str) -> Any:
        session = self._sessions.get(graph)
        if session is None:
            raise EngineInvalidError(CLOSED)
        return session


class SlicePool:
    """Slices on threads of their own, each through one session of one thread, which is opened when it is needed."""

    def __init__(self, threads: int, open_session: Callable[[], Any]) -> None:
        self.threads, self._open = threads, open_session
        self._session: Any = None
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def run(
        self, batches: Iterable[np.ndarray], answer: Callable[[Any, np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """``answer`` of the session and every image (1, 1, S, S), a batch at a time, in order.

        Batches are asked for until every thread has a slice waiting behind its own, so that none idles between two.
        """
        under_way: deque[list[Future[np.ndarray]]] = deque()
        try:
            for images in batches:
                under_way.append(self._submit(images, answer))
                while sum(map(len, under_way)) - len(under_way[0]) >= self.threads:
                    yield _gathered(under_way.popleft())
            while under_way:
                yield _gathered(under_way.popleft())
        finally:  # an error, or a caller who wants no more
            for slice_ in (slice_ for batch in under_way for slice_ in batch):
                slice_.cancel()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._executor is not None:
                self._executor.shutdown(cancel_futures=True)
            self._session = self._executor = None

    def _submit(self, images: np.ndarray, answer: Callable[[Any, np.ndarray], np.ndarray]) -> list[Future[np.ndarray]]:
        with self._lock:  # to the last slice: ``close`` must not come between
            if self._closed:
                raise EngineInvalidError(CLOSED)
            if self._executor is None:
                self._session = self._open()
                self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="lsms-slice")
            return [self._executor.submit(answer, self._session, image[None]) for image in images]


def _gathered(batch: list[Future[np.ndarray]]) -> np.ndarray:
    try:
        return np.concatenate([slice_.result() for slice_ in batch])
    except CancelledError as error:  # by ``close``
        raise EngineInvalidError(CLOSED) from error


def cpu_count() -> int:
    """CPUs that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(session: Any, graph: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        result: list[np.ndarray] = session.run(outputs, feeds)
    except Exception as error:  # the library's own exceptions have no common public base
        raise EngineInvalidError(f"ONNX Runtime could not run {graph}: {brief(error)}") from error
    return result


PROVIDERS = {  # of ONNX Runtime, the first that runs an operator takes it
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
log = logging.getLogger("lsms_rt")


def choose_providers(ort: Any, kind: str | None, index: int) -> list[Any]:
    """What a session is opened with.  Raises :class:`MachineError` where the package has no such provider."""
    there = ort.get_available_providers()
    if kind is None:  # what the package was compiled with says nothing of this machine
        kind = "cuda" if "CUDAExecutionProvider" in there and look().problem is None else "cpu"
        log.info("ONNX Runtime on %s", kind)
    missing = [name for name in PROVIDERS[kind] if name not in there]
    if missing:
        raise MachineError(
            f"device {kind!r}: this ONNX Runtime has no {missing[0]}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    on_gpu = {"device_id": index}
    return [name if name.startswith("CPU") else (name, on_gpu) for name in PROVIDERS[kind]]


def _session(ort: Any, engine: EngineDirectory, name: str, threads: int | None, providers: list[Any]) -> Any:
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
        what = f"ONNX Runtime {ort.__version__} cannot load {engine.path / name}: {brief(error)}"
        raise EngineInvalidError(what) from error
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != first:  # the library goes on without a provider that does not start
        raise MachineError(f"ONNX Runtime's {first} does not start here; see lsms-rt doctor, or take device='cpu'")
    found = {value.name for value in session.get_inputs()}
    if found != set(INPUTS[name]):
        raise EngineInvalidError(
            f"{engine.path / name} has inputs {brief(sorted(found), 200)}, not {', '.join(sorted(INPUTS[name]))}; "
            "build the engine again"
        )
    return session


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
