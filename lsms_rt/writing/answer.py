"""Result for one slice, new or restored from an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice


@dataclass(frozen=True, eq=False)
class Answer:
    """The part of a result that is kept for the outputs of a whole series.

    Attributes:
        ct: the slice.
        mask: bool (H, W), in the input's own grid.
        text: the sentence.
        record: the slice's entry in results.json.
        read_as: the sentence as the engine reads it.
        understood: whether it understands it: "yes", "partly" or "no".
    """

    ct: CtSlice
    mask: np.ndarray
    text: str
    record: dict[str, Any]
    read_as: str = ""
    understood: str = "yes"

    @property
    def found(self) -> bool:
        """Return whether the mask is not empty."""
        return bool(self.mask.any())
