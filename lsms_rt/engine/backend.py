"""The one small protocol that every engine backend keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

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


class OneByOne:
    """A backend's ``segment_many`` where nothing overlaps."""

    def segment_many(self: SegmentsOne, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        return (self.segment(images, text) for images in batches)


class SegmentsOne(Protocol):
    """What :class:`OneByOne` needs of a backend."""

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        """As in :class:`Backend`."""
