"""Read a slice from a .npy file or a gray image file (PNG, JPEG, TIFF, BMP)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice, check_shape, slice_from_array
from lsms_rt.errors import InputError

from .stated import Window

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# By content, whatever the extension: Pillow would pass EPS to Ghostscript.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def read_npy(path: Path, name: str) -> CtSlice:
    """Read an array (H, W) in HU, in the usual axial view; ``name`` is the file's name in messages."""
    try:
        with warnings.catch_warnings():
            # numpy warns of overflows in a hostile header
            warnings.simplefilter("ignore")
            # memory-mapped, so that limits are checked before reading
            a = np.load(path, mmap_mode="r", allow_pickle=False)
            # an .npz file with the extension .npy has no dtype
            fields = a.dtype.names
    except Exception as error:
        # A hostile header raises ValueError, TypeError, OverflowError, errors of tokenize ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable .npy file ({kind}); save it with numpy.save(path, hu)") from error
    if fields:
        # The names of the fields are free text, so they are not repeated.
        raise InputError(f"{name}: a table of {len(fields)} fields, not a CT image; save it with numpy.save(path, hu)")
    return slice_from_array(a, name)


def read_image(path: Path, window: Window | None, name: str) -> CtSlice:
    """Read a gray image: 16-bit as HU + 1024, 8-bit by the ``window`` that it shows; ``name`` is used in messages."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            # before decoding
            check_shape(image.height, image.width, name)
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise InputError(f"{name}: an image of {pages} pages; save one page, or give DICOM or NIfTI")
            # Explicitly: numpy would hide Pillow's errors.
            image.load()
            mode, a = image.mode, np.asarray(image)
    except InputError:
        raise
    except Exception as error:
        # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable image ({kind}); save it as a 16-bit gray PNG (HU + 1024)") from error
    if mode == "L":
        if window is None:
            fix = "give the level and width that it shows: --window 50 350, in Python window=(50, 350)"
            raise InputError(f"{name}: an 8-bit image, its gray values are not HU; {fix}")
        level, width = window
        note = f"an 8-bit image is assumed to show level {level:g}, width {width:g} HU, as given"
        return slice_from_array(level - width / 2 + a.astype(np.float32) * (width / 255), name, notes=(note,))
    if mode.startswith("I"):
        note = "a 16-bit image is assumed to contain HU + 1024"
        return slice_from_array(a.astype(np.float32) - 1024, name, notes=(note,))
    raise InputError(f"{name}: an image of mode {mode}; save it as 8-bit or 16-bit gray (HU + 1024)")
