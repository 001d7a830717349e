"""The result for one slice: a mask in the input's own grid, and its measures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from .atomic import atomic_file
from .ct_slice import CtSlice
from .errors import chain_cut
from .postprocess import area_mm2, bbox
from .sentences import Reading
from .sentences.reading import Understood
from .writing.caption import slice_name


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """The result for one slice; all arrays are in the input's own grid (its rows and columns).

    Attributes:
        mask: bool (H, W), the lesion; empty if nothing matches the sentence.
        probability: float32 (H, W) in [0, 1].
        text: the sentence.
        score: the highest probability in the slice, on the network's own grid.  Below ``confidence`` the mask is empty.
        ct: the slice, with its image in the model's frame.
        index: position in what was asked for, from 0: in the caller's iterable, or in the series from feet to head.
        weights_note: the engine's description of its weights.
        confidence: the engine's threshold for ``score``.
        reading: how the engine reads the sentence; None for a result that is not of a ``Segmenter``.
        timings: milliseconds per step.  "total" of ``predict`` includes reading; in a series, times are a slice's share
            of its batch.
        found: whether the mask is not empty.
        hu: float32 (H, W), the image in HU.
        area_mm2: area of the mask in mm2; None if the pixel spacing is unknown.
        bbox: (row0, column0, row1, column1) around the mask, half open; None if nothing was found.
        mean_hu: mean HU over the mask; None if nothing was found.
        read_as: the sentence as the network got it: known words for unknown ones of the same meaning.
        understood: "yes", "partly", or "no": it was answered because ``on_unknown`` is "warn".
        unknown_words: words of the sentence that the engine does not know; they were ignored.
        notes: assumptions that were made about the image, and what of the sentence is not understood.
    """

    mask: np.ndarray
    probability: np.ndarray
    text: str
    score: float
    ct: CtSlice
    weights_note: str
    confidence: float
    reading: Reading | None = None
    index: int = 0
    timings: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Segmentation {'found' if self.found else 'nothing found'}, score {self.score:.2f}, {self.mask.shape}>"

    @property
    def found(self) -> bool:
        return bool(self.mask.any())

    @property
    def hu(self) -> np.ndarray:
        return self.ct.to_input_grid(self.ct.hu)

    @property
    def area_mm2(self) -> float | None:
        return area_mm2(self.mask, self.ct.spacing_mm)

    @property
    def bbox(self) -> tuple[int, int, int, int] | None:
        return bbox(self.mask)

    @property
    def mean_hu(self) -> float | None:
        return float(self.hu[self.mask].mean()) if self.found else None

    @property
    def read_as(self) -> str:
        return self.text if self.reading is None else self.reading.read_as

    @property
    def understood(self) -> Understood:
        return "yes" if self.reading is None else self.reading.understood

    @property
    def unknown_words(self) -> tuple[str, ...]:
        return () if self.reading is None else self.reading.unknown_words

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes(names=True)

    def _notes(self, *, names: bool) -> tuple[str, ...]:
        return self.ct.notes if self.reading is None else (*self.ct.notes, *self.reading.notes(names=names))

    # alias of version 0.1
    @property
    def slice(self) -> CtSlice:
        """Deprecated: use ``ct``."""
        warnings.warn("Segmentation.slice is now Segmentation.ct", DeprecationWarning, stacklevel=2)
        return self.ct

    @chain_cut
    def to_dict(self, *, include_text: bool = False) -> dict[str, Any]:
        """Return everything but the arrays, in plain types for JSON.

        Args:
            include_text: include the sentence, how it is read and its unknown words, which may contain a patient's
                data.
        """
        return {
            "index": self.index,
            "source": self.ct.source,
            "frame": self.ct.frame,
            "slice": slice_name(self.ct),
            "position_mm": None if self.ct.position_mm is None else round(self.ct.position_mm, 3),
            **({"text": self.text} if include_text else {}),
            **({} if self.reading is None else self.reading.to_dict(include_text=include_text)),
            "found": self.found,
            "score": round(self.score, 4),
            "confidence": self.confidence,
            "pixels": int(self.mask.sum()),
            "shape": list(self.mask.shape),
            "area_mm2": None if self.area_mm2 is None else round(self.area_mm2, 2),
            "bbox": None if self.bbox is None else list(self.bbox),
            "mean_hu": None if self.mean_hu is None else round(self.mean_hu, 1),
            "side_known": self.ct.side_known,
            "notes": list(self._notes(names=include_text)),
            "weights": self.weights_note,
            "timings_ms": {name: round(value, 2) for name, value in self.timings.items()},
        }

    @chain_cut
    def save_overlay(
        self, path: str | PathLike[str], truth: np.ndarray | None = None, note: str | None = None, *,
        include_text: bool | None = None,
    ) -> None:  # fmt: skip
        """Write a PNG with the slice, and the slice with the mask, in the usual view (the patient's right is left).

        R and L are drawn only if ``ct.side_known``.

        Args:
            path: the file to write.
            truth: bool (H, W), a true mask in the input's grid; it is outlined in green.
            note: a description of the slice, written below the image.
            include_text: write the sentence below the image; it may contain a patient's data.  None: if names are
                shown.

        Raises:
            InputError: the file cannot be written.
        """
        from .writing.overlay import save_overlay

        save_overlay(path, self, truth, note, include_text=include_text)

    @chain_cut
    def save_mask(self, path: str | PathLike[str]) -> None:
        """Write the mask as a PNG with values 0 and 255, in the input's grid; InputError if it cannot be written."""
        from PIL import Image

        with atomic_file(path) as part:
            Image.fromarray(np.where(self.mask, 255, 0).astype(np.uint8)).save(part, format="PNG")
