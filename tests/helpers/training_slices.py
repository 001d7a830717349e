"""Small training slices for the tests."""

from __future__ import annotations

import numpy as np

from lsms_rt.datasets.phantom.lesion import Lesion
from lsms_rt.training.slices import NO_MASK, Asked, SliceRecord, Slices


def lesion(number: int, **changes: object) -> Lesion:
    """A lesion with unremarkable attributes."""
    values: dict[str, object] = {
        "id": number,
        "type": "cyst",
        "mask": NO_MASK,
        "lobe": "left",
        "diameter_mm": 15.0,
        "centroid_mm": (0.0, 10.0 * number),
        "density": "low",
        "enhancement": "none",
        "margin": "sharp",
        "hu_difference": -60.0,
    }
    return Lesion(**(values | changes))  # type: ignore[arg-type]


def two_squares() -> Slices:
    """One 96x96 slice of a data set without attributes: two square regions, three sentences."""
    index = np.zeros((1, 96, 96), np.uint8)
    index[0, 30:40, 30:40] = 1
    index[0, 60:66, 50:56] = 2
    hu = np.where(index > 0, 20, 60).astype(np.int16)
    asked = (
        Asked(text="the left one", regions=(1,)),
        Asked(text="both", regions=(1, 2)),
        Asked(text="the third one", regions=()),
    )
    record = SliceRecord(case="a", name="a/0", asked=asked, regions=2)
    return Slices(hu, index, None, (record,), complete=False)
