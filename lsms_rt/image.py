"""Whatever holds CT slices -> CtSlice: files of several formats, datasets, arrays.

Only files that state their orientation (DICOM, NIfTI) are turned; arrays, .npy files and pictures are taken to be
in the usual axial view already.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .ct import MAX_VOXELS, CtSlice, VolumeGrid, check_shape, slice_from_array
from .errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    pass

PNG_WINDOW = (50.0, 350.0)  # (level, width) in HU that an 8-bit picture is taken to show
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def load_slices(
    img: object, *, png_window: tuple[float, float] = PNG_WINDOW, series: str | int | None = None
) -> list[CtSlice]:
    """Read one or more axial slices, feet to head.

    img: a DICOM file; a folder holding a DICOM series (`series` chooses: a SeriesNumber or the end of a UID);
    .npy (H, W) in HU; a grey picture, 16-bit meaning HU + 1024 and 8-bit meaning 0 and 255 at the ends of
    `png_window` = (level, width); .nii or .nii.gz (needs nibabel); a pydicom Dataset; an array (H, W) in HU.
    Raises InputError, or EnvironmentProblem where a library is missing. What was assumed is logged.
    """
    from .dicom.read import log_notes, slices_from_dataset

    if isinstance(img, CtSlice):
        return [img]
    if isinstance(img, np.ndarray):
        return log_notes([slice_from_array(img)])
    if isinstance(img, (str, os.PathLike)):
        return _load_path(Path(os.fsdecode(img)), png_window, series)
    pydicom = sys.modules.get("pydicom")  # a Dataset can only exist where pydicom was imported
    if pydicom is not None and isinstance(img, pydicom.Dataset):
        from .dicom.series import feet_to_head

        return feet_to_head(slices_from_dataset(img, "Dataset"))
    raise InputError(f"an image of type {type(img).__name__}; give a path, a Dataset or an array in HU")


def load_slice(img: object, *, png_window: tuple[float, float] = PNG_WINDOW) -> CtSlice:
    """`load_slices` for an input that holds exactly one slice; InputError if it holds several."""
    slices = load_slices(img, png_window=png_window)
    if len(slices) != 1:
        raise InputError(f"{slices[0].source}: holds {len(slices)} slices, one is needed; use predict_series")
    return slices[0]


def _load_path(path: Path, png_window: tuple[float, float], series: str | int | None) -> list[CtSlice]:
    from .dicom.read import log_notes, read_slices
    from .dicom.series import feet_to_head, read_series

    name = path.name.lower()
    if path.is_dir():
        return read_series(path, series)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if name.endswith(".npy"):
        return log_notes([_slice_from_npy(path)])
    if name.endswith(_PICTURES):
        return log_notes([_slice_from_picture(path, png_window)])
    if name.endswith((".nii", ".nii.gz")):
        return log_notes(_slices_from_nifti(path))
    return feet_to_head(read_slices(path))


def _slice_from_npy(path: Path) -> CtSlice:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of overflows in a hostile header
            a = np.load(path, mmap_mode="r", allow_pickle=False)  # judged before it is read
            _ = a.ndim, a.dtype  # an .npz by another name has neither
    except Exception as error:  # a hostile header gives ValueError, TypeError, OverflowError, tokenize's errors ...
        kind = type(error).__name__
        raise InputError(f"{path.name}: not a readable .npy ({kind}); save it with numpy.save(path, hu)") from error
    return slice_from_array(a, path.name)


def _slice_from_picture(path: Path, window: tuple[float, float]) -> CtSlice:
    from PIL import Image

    level, width = window
    if not (np.isfinite(level) and np.isfinite(width) and width > 0):
        raise InputError(f"png_window is {window}; give (level, width) in HU, width above 0, as (50, 350)")
    try:
        with Image.open(path) as picture:
            check_shape(picture.height, picture.width, path.name)  # before decoding
            picture.load()  # here: numpy would not pass on its errors
            mode, a = picture.mode, np.asarray(picture)
    except InputError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError ...
        kind = type(error).__name__
        raise InputError(f"{path.name}: not a readable picture ({kind}); save it again") from error
    if mode == "L":
        note = f"an 8-bit picture is taken to show level {level:g}, width {width:g} HU (png_window, --png-window)"
        hu = level - width / 2 + a.astype(np.float32) * (width / 255)
        return slice_from_array(hu, path.name, notes=(note,))
    if mode.startswith("I"):
        return slice_from_array(a.astype(np.float32) - 1024, path.name)
    raise InputError(f"{path.name}: a picture of mode {mode}; save it grey, 8-bit or 16-bit (HU + 1024)")


def _slices_from_nifti(path: Path) -> list[CtSlice]:
    try:
        nibabel: Any = importlib.import_module("nibabel")  # not a dependency
    except ImportError as error:
        raise EnvironmentProblem(f"{path.name}: reading NIfTI needs nibabel; pip install nibabel") from error
    try:
        image = nibabel.load(path)
        shape = (*image.shape, 1)[:3] if len(image.shape) == 2 else tuple(image.shape)
        # Row n says which patient axis (0 = x, 1 = y, 2 = z) array axis n follows, and +1 if to R, A, S.
        axes = nibabel.orientations.io_orientation(image.affine)
        zooms = [float(z) for z in (*image.header.get_zooms(), 1.0)[:3]]
        if len(shape) != 3 or not np.isfinite(axes).all() or np.prod(shape, dtype=float) > MAX_VOXELS:
            raise InputError(f"{path.name}: shape {image.shape} or affine is no CT volume; give 2 or 3 axes")
        z = int(np.argmax(axes[:, 0] == 2))
        first, second = (n for n in range(3) if n != z)
        check_shape(shape[first], shape[second], path.name)
        data = np.moveaxis(np.asarray(image.dataobj, dtype=np.float32).reshape(shape), z, 0)
    except InputError:
        raise
    except Exception as error:  # nibabel raises ImageFileError, OSError, EOFError, ValueError, zlib.error ...
        kind = type(error).__name__
        raise InputError(f"{path.name}: not a readable NIfTI file ({kind}); save it again") from error
    transposed = bool(axes[first, 0] == 0)  # the array's first axis runs along x, the model's columns do
    y, x = (second, first) if transposed else (first, second)
    flips = (bool(axes[y, 1] > 0), bool(axes[x, 1] > 0))  # the model's grow to P and L
    fields: dict[str, Any] = {"spacing_mm": (zooms[y], zooms[x]), "flips": flips, "transposed": transposed}
    fields["grid"] = VolumeGrid(tuple(image.shape), np.asarray(image.affine, np.float64), z)
    order = range(shape[z]) if axes[z, 1] > 0 else range(shape[z] - 1, -1, -1)
    frames = ((n, CtSlice.to_model_frame(data[n], flips, transposed)) for n in order)
    return [
        slice_from_array(a, path.name, frame=n, position_mm=k * zooms[z], **fields) for k, (n, a) in enumerate(frames)
    ]
