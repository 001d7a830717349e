"""The choice among the backends: who runs an engine, and where."""

from __future__ import annotations

from lsms_rt.errors import EngineInvalidError, InputError

from .backend import Backend
from .manifest import EngineDirectory

BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")


def open_backend(
    engine: EngineDirectory, threads: int | None = None, device: str | None = None, cuda_graph: bool = True
) -> Backend:
    """The backend that the engine's manifest names.

    ``threads`` is for CPU execution; None lets the library choose.  ``device`` is "cpu", "cuda" or "cuda:1", and for
    ONNX Runtime also "tensorrt" (its execution provider); None takes a GPU where the backend can.  ``cuda_graph`` is
    for TensorRT.  Raises :class:`InputError` for a device that the backend has not.
    """
    name = engine.manifest.backend
    kind, index = parse_device(device)
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(engine, threads, kind, index)
    if name in BACKENDS:
        from .tensorrt.backend import TensorRtBackend

        if kind not in (None, "cuda"):
            raise InputError(f"device {device!r}: an engine of {name} runs on cuda; for a CPU build one of onnxruntime")
        return TensorRtBackend(engine, index, cuda_graph)
    raise EngineInvalidError(f"{engine.path} is for backend {name!r}; this lsms-rt runs: {', '.join(BACKENDS)}")


def parse_device(device: str | None) -> tuple[str | None, int]:
    """``"cuda:1"`` -> ``("cuda", 1)``.  Raises :class:`InputError` for what is no device."""
    if device is None:
        return None, 0
    kind, colon, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    wrong = kind not in ("cpu", "cuda", "tensorrt") or (colon and (kind == "cpu" or not index.isdecimal()))
    if wrong:
        raise InputError(f"device {device!r}; give cpu, cuda or cuda:1 (tensorrt is ONNX Runtime's provider)")
    return kind, int(index or "0")
