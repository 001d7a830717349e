"""Masks and label pictures: 8-bit gray PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import MAX_SIDE
from lsms_rt.errors import InputError


def read_png(path: Path, name: str, fix: str) -> tuple[str, np.ndarray]:
    """Read the mode and the pixels (H, W) of a PNG.

    The mode is Pillow's; of gray with fewer bits than 8, which Pillow stretches to 0 to 255, it is "L;4", "L;2".

    Args:
        path: the file.
        name: how messages call it, with its place.
        fix: what messages advise.

    Raises:
        InputError: it is no PNG, too large, or has color channels.
    """
    from PIL import Image

    try:
        # Of other formats, some are programs (EPS).
        with _without_warning(), Image.open(path, formats=("PNG",)) as picture:
            # Before decoding.
            if max(picture.size) > MAX_SIDE:
                raise InputError(
                    f"{name} has {picture.height}x{picture.width} pixels, more than {MAX_SIDE} along a side; {fix}"
                )
            mode = str(picture.tile[0][3]) if picture.mode == "L" else picture.mode
            pixels = np.asarray(picture)
    except InputError:
        raise
    except Exception as error:
        # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError ...
        raise InputError(f"{name} is not a readable PNG ({type(error).__name__}); {fix}") from error
    if pixels.ndim != 2:
        raise InputError(f"{name} has shape {pixels.shape}, not (H, W); {fix}")
    return mode, pixels


@contextmanager
def _without_warning() -> Iterator[None]:
    """Keep Pillow's warning of large pictures, several lines with paths, from the user: they are refused here."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels, uint8 (H, W), as a picture; its folder is made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
