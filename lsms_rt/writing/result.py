"""What can be written: a Segmentation, or anything else that has these."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lsms_rt.ct_slice import CtSlice


class Result(Protocol):
    """The answer for one slice."""

    @property
    def slice(self) -> CtSlice:
        """The image that was asked about."""

    @property
    def mask(self) -> np.ndarray:
        """bool (H, W), in the input's own grid."""

    @property
    def text(self) -> str:
        """The sentence that was asked."""
