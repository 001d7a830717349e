"""Read a slice from a .npy file or a gray image file (PNG, JPEG, TIFF, BMP)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice, check_shape, slice_from_array
from lsms_rt.errors import InputError

from .stated import NOTHING, Stated

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# By content, whatever the extension: Pillow would pass EPS to Ghostscript.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# HU + 1024 of the largest extended scale; signed HU that were saved as unsigned are above
_MAX_STORED = 32767


def read_npy(path: Path, name: str, stated: Stated = NOTHING) -> CtSlice:
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
    return slice_from_array(a, name, side_known=stated.side_known)


def read_image(path: Path, name: str, stated: Stated = NOTHING) -> CtSlice:
    """Read a gray image: 16-bit as HU + 1024, 8-bit by the window that it shows; ``name`` is used in messages."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            # before decoding
            check_shape(image.height, image.width, name)
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise InputError(f"{name}: an image of {pages} pages; save one page, or give DICOM or NIfTI")
            # Viewers would turn or mirror it; Pillow turns TIFF images only.
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            # Explicitly: numpy would hide Pillow's errors.
            image.load()
            mode, a = image.mode, np.asarray(image)
    except InputError:
        raise
    except Exception as error:
        # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable image ({kind}); save it as a 16-bit gray PNG (HU + 1024)") from error
    if turned:
        raise InputError(f"{name}: its Exif tag Orientation turns or mirrors it; save it upright, without the tag")
    if mode == "L":
        if stated.window is None:
            fix = "give the level and width that it shows: --window 50 350, in Python window=(50, 350)"
            raise InputError(f"{name}: an 8-bit image, its gray values are not HU; {fix}")
        level, width = stated.window
        note = f"an 8-bit image is assumed to show level {level:g}, width {width:g} HU, as given"
        hu = level - width / 2 + a.astype(np.float32) * (width / 255)
        return slice_from_array(hu, name, notes=(note,), side_known=stated.side_known)
    if mode.startswith("I"):
        low, high = int(a.min()), int(a.max())
        if low < 0 or high > _MAX_STORED:
            what = f"values from {low} to {high} are not HU + 1024"
            raise InputError(f"{name}: {what}; if they are HU, save them with numpy.save('slice.npy', hu)")
        note = "a 16-bit image is assumed to contain HU + 1024"
        return slice_from_array(a.astype(np.float32) - 1024, name, notes=(note,), side_known=stated.side_known)
    fix = "save it as 16-bit gray (HU + 1024), or HU with numpy.save('slice.npy', hu)"
    raise InputError(f"{name}: an image of mode {mode}; {fix}")
