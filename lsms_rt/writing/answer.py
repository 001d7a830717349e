"""The answer for one slice, as far as it is kept: computed now, or by a run before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice


@dataclass(frozen=True, eq=False)
class Answer:
    """``mask`` bool (H, W) in the input's own grid of ``slice``; ``record`` is what results.json says of it."""

    slice: CtSlice
    mask: np.ndarray
    text: str
    record: dict[str, Any]

    @property
    def found(self) -> bool:
        return bool(self.mask.any())
