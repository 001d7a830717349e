"""The protocol of engine backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lsms_rt.machine.cpu import find as find_cpu

STAGES = 4
TEXT_INPUTS = ("tokens", "mask")
FEATURES = tuple(f"{kind}{stage}" for kind in ("keys", "values") for stage in range(1, STAGES + 1))


@dataclass(frozen=True)
class SentenceFeatures:
    """Encoded sentences, input of the image graph: computed once, used for every slice.

    Attributes:
        arrays: ``keys1`` ... ``values4``, each (N, depth, T, C) for N sentences, as the backend stores them: NumPy
            float32, or on its device.
        mask: float32 (N, T).
    """

    arrays: dict[str, Any]
    mask: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.mask)

    @classmethod
    def joined(cls, parts: Sequence[SentenceFeatures]) -> SentenceFeatures:
        """Return the sentences of all ``parts``, in order."""
        arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
        return cls(arrays, np.concatenate([part.mask for part in parts]))

    def repeated(self, batch: int) -> SentenceFeatures:
        """Return the sentences of a batch, one row per image: image i is asked for sentence i modulo N.

        Raises:
            ValueError: N does not divide the number of images.
        """
        times, rest = divmod(batch, len(self))
        if rest:
            raise ValueError(f"{batch} images for {len(self)} sentences; give a multiple of the sentences")
        return self if times == 1 else self.joined([self] * times)


class Backend(Protocol):
    """Runs the two graphs of one engine; it may be used from several threads.

    Attributes:
        version: of the library.
    """

    version: str

    @property
    def device(self) -> str:
        """The processor that it runs on, in words, e.g. "NVIDIA H100 PCIe"."""

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        """Encode a sentence: ``tokens`` int64 (1, T), ``mask`` float32 (1, T)."""

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        """Segment ``images``, float32 (B, 1, S, S) in [-1, 1] with 1 <= B <= max_batch; returns float32 (B, S, S).

        Of N sentences in ``text``, image i is asked for sentence i modulo N; N divides B.
        """

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        """Segment every batch, in order; on a GPU, copies of one batch overlap with the computation of another."""

    def close(self) -> None:
        """Free the engine's resources; it may be called twice."""


class OneByOne:
    """Implements ``segment_many`` by ``segment``, without overlap; on the CPU, unless ``device`` says otherwise."""

    @property
    def device(self) -> str:
        return find_cpu().name

    def segment_many(self: SegmentsOne, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        return (self.segment(images, text) for images in batches)


class SegmentsOne(Protocol):
    """The part of a backend that :class:`OneByOne` uses."""

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        """Segment ``images`` as in :class:`Backend`."""
