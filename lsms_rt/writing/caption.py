"""Texts about a result, for the terminal and for captions of images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.postprocess import verdict

from .headers import value_of
from .result import MeasuredResult

NOTHING_FOUND = "nothing found"
SIDE_UNKNOWN = "left and right not stated by the input"
# In files that others than the caller open.
NOT_FOR_DIAGNOSIS = "research, not for diagnosis"


def slice_name(ct: CtSlice) -> str:
    """Return how other systems name a slice, "image 35 at -120.0 mm": its InstanceNumber, and its frame or index.

    The index of a slice of a volume counts from 0, as arrays do, a frame from 1.  "" for an image without any of it.
    """
    if ct.header is None:
        name = "" if ct.grid is None else f"slice {ct.frame}"
    else:
        number, frames = (_whole(ct.header, key) for key in ("InstanceNumber", "NumberOfFrames"))
        parts = ["" if number is None else f"image {number}", f"frame {ct.frame + 1}" if (frames or 1) > 1 else ""]
        name = ", ".join(filter(None, parts))
    return " ".join(filter(None, (name, "" if ct.position_mm is None else f"at {ct.position_mm:.1f} mm")))


def _whole(header: Any, key: str) -> int | None:
    """Return an attribute as a number; None for anything else, which may be a name."""
    value = value_of(header, key)
    return int(value) if re.fullmatch(r"\d{1,9}", str(value)) else None


def number_text(value: float) -> str:
    """Return a size in whole numbers; below 1 with two significant digits: what was found is never "0"."""
    return f"{value:.0f}" if value >= 1 else f"{value:.2g}"


def size_text(pixels: int, area_mm2: float | None) -> str:
    """Return the size of a mask: "123 mm2", or "456 pixels" if its area is unknown."""
    return f"{pixels} pixels" if area_mm2 is None else f"{number_text(area_mm2)} mm2"


def volume_text(volume_ml: float) -> str:
    """Return a volume: "1.2 ml", below 0.1 ml "12 mm3"."""
    return f"{volume_ml:.1f} ml" if volume_ml >= 0.1 else f"{number_text(1000 * volume_ml)} mm3"


def finding_text(pixels: int, area_mm2: float | None, mean_hu: float | None) -> str:
    """Return a result in words: "nothing found", or the size and the mean HU."""
    if mean_hu is None:
        return NOTHING_FOUND
    return f"{size_text(pixels, area_mm2)}, mean {mean_hu:.0f} HU"


def count_text(found: int, slices: int) -> str:
    """Return in how many slices of a series something was found."""
    return f"found in {found} of {slices} slices" if found else f"{NOTHING_FOUND} in {slices} slices"


def incomplete_text(missing: int) -> str:
    """Return that images have no answer, for every file of a series that travels on; "" if all have one."""
    if not missing:
        return ""
    return f"incomplete: {missing} {'image' if missing == 1 else 'images'} without an answer"


def understood_text(understood: str) -> str:
    """Return that a sentence is not wholly understood, for every file that travels on; "" if it is.

    Args:
        understood: "yes", "partly" or "no".
    """
    texts = {"yes": "", "partly": "sentence partly understood", "no": "sentence not understood"}
    return texts[understood]


def caption_of(result: MeasuredResult, truth: np.ndarray | None, include_text: bool) -> str:
    """Return the caption of an image: the sentence, the result, and how it compares with the true mask."""
    caption = finding_text(int(result.mask.sum()), result.area_mm2, result.mean_hu)
    if truth is not None:
        caption += f", {verdict(result.mask, truth)}"
    return f"{result.text}: {caption}" if include_text else caption


def footer_of(result: MeasuredResult, truth: np.ndarray | None, note: str | None) -> str:
    """Return the footer of an image: a note about it, the colors, what is not known or understood, and the weights."""
    colors = None if truth is None else "red: predicted, green: truth"
    side = None if result.ct.side_known else SIDE_UNKNOWN
    understood = understood_text(result.understood)
    return "; ".join(filter(None, (note, colors, side, understood, f"{result.weights_note}, not for diagnosis")))
