"""The one small protocol that every engine backend keeps, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import EngineInvalid, InputError
from .manifest import EngineDirectory

STAGES = 4
TEXT_INPUTS = ("tokens", "mask")
FEATURES = tuple(f"{kind}{stage}" for kind in ("keys", "values") for stage in range(1, STAGES + 1))


@dataclass(frozen=True)
class SentenceFeatures:
    """What the image graph needs of one sentence: computed once, used for every slice.

    ``arrays`` maps ``keys1`` ... ``values4`` to (1, depth, T, C), in a form of the backend's own: NumPy float32, or
    where its device has them.  ``mask`` is float32 (1, T).
    """

    arrays: dict[str, Any]
    mask: np.ndarray


class Backend(Protocol):
    """Runs the two graphs of one engine.  Safe to use from several threads."""

    version: str

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        """``tokens`` int64 (1, T), ``mask`` float32 (1, T) -> the sentence's features."""

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        """``images`` float32 (B, 1, S, S) in [-1, 1], 1 <= B <= max_batch -> logits float32 (B, S, S)."""

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        """``segment`` of every batch, in order; a GPU's backend overlaps a batch's copies with another's computing."""

    def close(self) -> None:
        """Free what the engine holds; calling it twice is harmless."""


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
            raise InputError(f"device {device!r}: an engine of {name} runs on cuda")
        return TensorRtBackend(engine, index, cuda_graph)
    raise EngineInvalid(f"{engine.path} is for backend {name!r}; this lsms-rt runs: {', '.join(BACKENDS)}")


def parse_device(device: str | None) -> tuple[str | None, int]:
    """``"cuda:1"`` -> ``("cuda", 1)``.  Raises :class:`InputError` for what is no device."""
    if device is None:
        return None, 0
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "tensorrt") or not (index or "0").isdecimal():
        raise InputError(f"device {device!r}; give cpu, cuda, cuda:1 ... or tensorrt")
    return kind, int(index or "0")
