"""Read a slice from a .npy file or a gray image file (PNG, JPEG, TIFF, BMP)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lsms_rt.ct_slice import CtSlice, check_array, check_shape, slice_from_array
from lsms_rt.errors import InputError

from .environment import raise_if_machine
from .limits import check_size
from .quiet import quiet_pydicom
from .stated import NOTHING, Stated

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# By content, whatever the extension: Pillow would pass EPS to Ghostscript.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# HU + 1024 of the largest extended scale; signed HU that were saved as unsigned are above
_MAX_STORED = 32767


def read_npy(path: Path, name: str, stated: Stated = NOTHING) -> CtSlice:
    """Read an array (H, W) in HU, in the usual axial view; ``name`` is the file's name in messages."""
    try:
        check_size(path.stat().st_size, name)
        # numpy warns of overflows in a hostile header
        with path.open("rb") as file, quiet_pydicom():
            a = _npy_array(file, name)
    except InputError:
        raise
    except Exception as error:
        raise_if_machine(error, name)
        # A hostile header raises ValueError, TypeError, OverflowError, errors of tokenize ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable .npy file ({kind}); save it with numpy.save(path, hu)") from error
    return _stated_slice(a, name, stated)


def _npy_array(file: BinaryIO, name: str) -> NDArray[Any]:
    """Read an array after its header was checked; not memory-mapped, since another process may shorten the file."""
    version = np.lib.format.read_magic(file)
    # Version 3.0 differs from 2.0 in names of fields only.
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read_header(file)
    if dtype.names:
        # The names of the fields are free text, so they are not repeated.
        what = f"a table of {len(dtype.names)} fields, not a CT image"
        raise InputError(f"{name}: {what}; save it with numpy.save(path, hu)")
    if dtype.hasobject:
        raise ValueError("pickled objects")
    check_array(shape, dtype, name)
    size = shape[0] * shape[1] * dtype.itemsize
    if size > os.fstat(file.fileno()).st_size - file.tell():
        raise EOFError
    a = np.frombuffer(file.read(size), dtype)
    return a.reshape(shape, order="F" if columns_first else "C")


def read_image(path: Path, name: str, stated: Stated = NOTHING) -> CtSlice:
    """Read a gray image: 16-bit as HU + 1024, 8-bit by the window that it shows; ``name`` is used in messages."""
    from PIL import ExifTags, Image

    try:
        check_size(path.stat().st_size, name)
        with Image.open(path, formats=_FORMATS) as image:
            # before decoding
            check_shape(image.height, image.width, name)
            if _has_pages(image):
                raise InputError(f"{name}: an image of several pages; save one page, or give DICOM or NIfTI")
            # Viewers would turn or mirror it; Pillow turns TIFF images only.
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            # Explicitly: numpy would hide Pillow's errors.
            image.load()
            mode, a = image.mode, np.asarray(image)
    except InputError:
        raise
    except Exception as error:
        raise_if_machine(error, name)
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
        # What values it has is the window's doing.
        return _stated_slice(hu, name, stated, note, doubtful=False)
    if mode.startswith("I"):
        low, high = int(a.min()), int(a.max())
        if low < 0 or high > _MAX_STORED:
            what = f"values from {low} to {high} are not HU + 1024"
            raise InputError(f"{name}: {what}; if they are HU, save them with numpy.save('slice.npy', hu)")
        note = "a 16-bit image is assumed to contain HU + 1024"
        return _stated_slice(a.astype(np.float32) - 1024, name, stated, note)
    fix = "save it as 16-bit gray (HU + 1024), or HU with numpy.save('slice.npy', hu)"
    raise InputError(f"{name}: an image of mode {mode}; {fix}")


def _stated_slice(hu: NDArray[Any], name: str, stated: Stated, *notes: str, doubtful: bool = True) -> CtSlice:
    return slice_from_array(
        hu, name, doubtful=doubtful, notes=notes, spacing_mm=stated.spacing, side_known=stated.side_known
    )


def _has_pages(image: Any) -> bool:
    """Return whether there is a second page; to count all of them may take hours."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True
