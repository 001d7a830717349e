"""Protocols of results that can be written: a Segmentation, or another class with these attributes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lsms_rt.ct_slice import CtSlice


class Result(Protocol):
    """The result for one slice."""

    @property
    def ct(self) -> CtSlice:
        """The slice."""

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool (H, W), in the input's own grid."""

    @property
    def text(self) -> str:
        """The sentence."""

    @property
    def read_as(self) -> str:
        """The sentence as the engine reads it."""

    @property
    def understood(self) -> str:
        """Whether the engine understands it: "yes", "partly" or "no"."""


class MeasuredResult(Result, Protocol):
    """A result with its measures, for the caption of an image."""

    @property
    def area_mm2(self) -> float | None:
        """The area of the mask in mm2; None if unknown."""

    @property
    def mean_hu(self) -> float | None:
        """The mean HU over the mask; None if it is empty."""

    @property
    def weights_note(self) -> str:
        """The engine's description of its weights."""
