"""Masks that an earlier run wrote."""

from __future__ import annotations

import io

import numpy as np

from lsms_rt.ct_slice import CtSlice


def read_mask(content: bytes, ct: CtSlice) -> np.ndarray | None:
    """Read the PNG of a slice's mask as bool (H, W), in the input's grid; None if it is not a picture of that size."""
    from PIL import Image

    rows, columns = ct.hu.shape[::-1] if ct.transposed else ct.hu.shape
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            # before anything is decoded
            if picture.size != (columns, rows):
                return None
            return np.asarray(picture.convert("L")) > 127
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
