"""Whatever holds CT slices -> CtSlice: files of several formats, datasets, arrays.

Only files that state their orientation (DICOM, NIfTI) are turned; arrays, .npy files and pictures are taken to be
in the usual axial view already.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice, check_shape, slice_from_array
from lsms_rt.errors import InputError
from lsms_rt.privacy import label, with_hint

Window = tuple[float, float]  # (level, width) in HU
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # whatever the name says: Pillow would hand EPS to Ghostscript


def load_slices(
    img: object,
    *,
    window: Window | None = None,
    series: str | int | None = None,
    on_damaged: Callable[[str], None] | None = None,
) -> list[CtSlice]:
    """Read one or more axial slices, feet to head.

    img: a DICOM file; a folder or a .zip archive holding a DICOM series, or a DICOMDIR; .npy (H, W) in HU; a grey
    picture, 16-bit meaning HU + 1024 and 8-bit only with a `window`; .nii or .nii.gz (needs nibabel); a pydicom
    Dataset; an array (H, W) in HU.
    window: (level, width) in HU that an 8-bit picture shows, 0 and 255 being its ends; nothing else is changed by it.
    series: which one of several: a SeriesNumber, "3:2" for the second that is listed with number 3, or a UID's end.
    on_damaged: is called with a line about each file of a series that cannot be read, and the others are returned;
    None refuses such a series.
    Raises InputError, or MachineError where a library is missing. What was assumed is logged. Messages and
    `CtSlice.source` hold no file name (`labels`).
    """
    if window is not None:
        _check_window(window)
    if isinstance(img, CtSlice):
        return [img]
    if isinstance(img, (str, os.PathLike)):
        return _load_path(Path(os.fsdecode(img)), window, series, on_damaged)
    from .dicom.read import log_notes, slices_from_dataset

    if isinstance(img, np.ndarray):
        return log_notes([slice_from_array(img)])
    pydicom = sys.modules.get("pydicom")  # a Dataset can only exist where pydicom was imported
    if pydicom is not None and isinstance(img, pydicom.Dataset):
        from .dicom.series import feet_to_head

        return feet_to_head(slices_from_dataset(img, "Dataset"))
    raise InputError(f"an image of type {type(img).__name__}; give a path, a Dataset or an array in HU")


def load_slice(img: object, *, window: Window | None = None) -> CtSlice:
    """`load_slices` for an input that holds exactly one slice; InputError if it holds several."""
    slices = load_slices(img, window=window)
    if len(slices) != 1:
        what = slices[0].source if not isinstance(img, (str, os.PathLike)) else label(img, "the input")
        raise InputError(f"{what}: holds {len(slices)} slices, one is needed; use predict_series")
    return slices[0]


def _check_window(window: Window) -> None:
    level, width = window
    if not (np.isfinite(level) and np.isfinite(width) and width > 0):
        raise InputError(f"window is {level:g}, {width:g}; give level and width in HU, width above 0, as 50 350")


def _load_path(
    path: Path, window: Window | None, series: str | int | None, on_damaged: Callable[[str], None] | None
) -> list[CtSlice]:
    from .dicom import read_archive, read_dicom, read_series
    from .dicom.read import log_notes

    name = path.name.lower()
    if path.is_dir():
        return read_series(path, series, on_damaged=on_damaged)
    if not path.is_file():
        raise InputError(with_hint(f"{label(path, 'the input')}: no such file; check the path"))
    if name.endswith(".zip"):
        return read_archive(path, series, on_damaged=on_damaged)
    called = label(path, "the file")
    if name.endswith(".npy"):
        return log_notes([_slice_from_npy(path, called)])
    if name.endswith(_PICTURES):
        return log_notes([_slice_from_picture(path, window, called)])
    if name.endswith((".nii", ".nii.gz")):
        from .nifti import read_nifti

        return log_notes(read_nifti(path, called))
    return read_dicom(path, series, on_damaged=on_damaged)


def _slice_from_npy(path: Path, name: str) -> CtSlice:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of overflows in a hostile header
            a = np.load(path, mmap_mode="r", allow_pickle=False)  # judged before it is read
            fields = a.dtype.names  # an .npz by another name has no dtype
    except Exception as error:  # a hostile header gives ValueError, TypeError, OverflowError, tokenize's errors ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable .npy ({kind}); save it with numpy.save(path, hu)") from error
    if fields:  # not in a message: the names of the fields are free text
        raise InputError(f"{name}: a table of {len(fields)} fields, not a CT image; save it with numpy.save(path, hu)")
    return slice_from_array(a, name)


def _slice_from_picture(path: Path, window: Window | None, name: str) -> CtSlice:
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            check_shape(picture.height, picture.width, name)  # before decoding
            pages = getattr(picture, "n_frames", 1)
            if pages > 1:
                raise InputError(f"{name}: a picture of {pages} pages; save one, or give DICOM or NIfTI")
            picture.load()  # here: numpy would not pass on its errors
            mode, a = picture.mode, np.asarray(picture)
    except InputError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable picture ({kind}); save it again") from error
    if mode == "L":
        if window is None:
            fix = "give the level and width that it shows: --window 50 350, in Python window=(50, 350)"
            raise InputError(f"{name}: an 8-bit picture, its grey values are not HU; {fix}")
        level, width = window
        note = f"an 8-bit picture is taken to show level {level:g}, width {width:g} HU, as given"
        return slice_from_array(level - width / 2 + a.astype(np.float32) * (width / 255), name, notes=(note,))
    if mode.startswith("I"):
        note = "a 16-bit picture is taken to hold HU + 1024"
        return slice_from_array(a.astype(np.float32) - 1024, name, notes=(note,))
    raise InputError(f"{name}: a picture of mode {mode}; save it grey, 8-bit or 16-bit (HU + 1024)")
