"""Whatever holds a CT slice -> Hounsfield units in the model's frame -> the image graph's tensor.

The model's frame: row 0 is anterior and column 0 the patient's right (the usual axial view). Only files that
state their orientation (DICOM, NIfTI) are turned; arrays, .npy files and pictures are taken to be in it.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HU_MIN, HU_MAX = -1024.0, 3071.0  # air ... the top of a 12-bit scanner's range
MIN_SIDE, MAX_SIDE = 16, 4096  # pixels
MAX_VOXELS = 2**30  # of a volume; 4 GiB as float32
PNG_WINDOW = (50.0, 350.0)  # (level, width) in HU that an 8-bit picture is taken to show
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class CtSlice:
    """One axial CT slice.

    hu: float32 (H, W), HU in [-1024, 3071], in the model's frame.
    spacing_mm: (between rows, between columns) in the model's frame, or None if unknown.
    flips: (rows, columns) were reversed, after any transposition, on the way from the input's grid.
    transposed: rows and columns were swapped on the way from the input's grid.
    source: a short name for messages.
    position_mm: distance along the slice normal, growing from feet to head; None if unknown.
    frame: number of the frame in a multi-frame file or of the slice in a volume, from 0.
    notes: what had to be assumed; no values from the file in it.
    """

    hu: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None = None
    flips: tuple[bool, bool] = (False, False)
    transposed: bool = False
    source: str = "array"
    position_mm: float | None = None
    sop_instance_uid: str | None = None
    frame: int = 0
    notes: tuple[str, ...] = ()

    @staticmethod
    def to_model_frame(a: NDArray[_T], flips: tuple[bool, bool], transposed: bool) -> NDArray[_T]:
        """(H, W) in the input's grid -> the model's frame; contiguous."""
        a = a.T if transposed else a
        return np.ascontiguousarray(a[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1])

    def to_input_grid(self, a: NDArray[_T]) -> NDArray[_T]:
        """(H, W) in the model's frame -> the input's own grid (its rows and columns); contiguous."""
        if a.shape != self.hu.shape:
            raise InputError(f"{self.source}: shape {a.shape}, not the slice's {self.hu.shape}; resample it")
        a = a[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]
        return np.ascontiguousarray(a.T if self.transposed else a)


@dataclass(frozen=True)
class Placement:
    """A slice's place in the square tensor: `rows` x `columns` of S x S pixels from (top, left)."""

    image_size: int  # S
    top: int
    left: int
    rows: int
    columns: int


def check_shape(rows: int, columns: int, source: str) -> None:
    """Refuse a slice that is too small to hold anatomy or too large to hold in memory (InputError)."""
    if min(rows, columns) < MIN_SIDE or max(rows, columns) > MAX_SIDE:
        limits = f"{MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}"
        raise InputError(f"{source}: a slice of {rows}x{columns} pixels; give one of {limits}")


def slice_from_array(a: NDArray[Any], source: str = "array", **fields: Any) -> CtSlice:
    """(H, W) integers or floats in HU, in the model's frame -> CtSlice; InputError for anything else."""
    if a.ndim != 2:
        raise InputError(f"{source}: shape {a.shape} has {a.ndim} axes; give one slice (H, W) in HU")
    if a.dtype.kind not in "iuf":
        raise InputError(f"{source}: dtype {a.dtype} is not a CT image; give integers or floats in HU")
    check_shape(a.shape[0], a.shape[1], source)
    bad = int(a.size - np.count_nonzero(np.isfinite(a)))
    if bad:
        raise InputError(f"{source}: {bad} of {a.size} values are NaN or infinite; use -1024 for air")
    notes = tuple(fields.pop("notes", ()))
    if float(a.min()) >= 0.0:
        notes += ("no value is below 0 HU: values are taken as Hounsfield units, check that they are",)
    hu = np.clip(a, HU_MIN, HU_MAX).astype(np.float32, order="C")
    return CtSlice(hu, source=source, notes=notes, **fields)


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
        raise InputError(f"{slices[0].source}: holds {len(slices)} slices, one is needed; use load_slices")
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
        a = np.load(path, mmap_mode="r", allow_pickle=False)  # judged before it is read
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path.name}: not a readable .npy; save it with numpy.save(path, hu)") from error
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
        return slice_from_array(level - width / 2 + a.astype(np.float32) * (width / 255), path.name)
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
    order = range(shape[z]) if axes[z, 1] > 0 else range(shape[z] - 1, -1, -1)
    frames = ((n, CtSlice.to_model_frame(data[n], flips, transposed)) for n in order)
    return [
        slice_from_array(a, path.name, frame=n, position_mm=k * zooms[z], **fields) for k, (n, a) in enumerate(frames)
    ]


def resize(a: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """(H, W) float32 -> (rows, columns): bilinear; where it shrinks, a mean over the area (no aliasing)."""
    from PIL import Image

    if a.shape == (rows, columns):
        return a
    picture = Image.fromarray(np.ascontiguousarray(a, dtype=np.float32))  # mode "F"
    return np.array(picture.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def to_tensor(ct: CtSlice, image_size: int, window: tuple[float, float]) -> tuple[NDArray[np.float32], Placement]:
    """CtSlice -> float32 (1, 1, S, S) in [-1, 1], and where the slice lies in it.

    window: (lower, upper) in HU, mapped to -1 and 1. The slice is centred in a square of air and keeps its
    physical proportions, so pixels that are not square in the file are for the model (spacing known).
    """
    lower, upper = window
    if not lower < upper:
        raise InputError(f"HU window {window}: the lower end must be below the upper; give e.g. (-160, 240)")
    dy, dx = ct.spacing_mm or (1.0, 1.0)
    height, width = ct.hu.shape[0] * dy, ct.hu.shape[1] * dx
    scale = image_size / max(height, width)
    rows, columns = (min(image_size, max(1, round(side * scale))) for side in (height, width))
    place = Placement(image_size, (image_size - rows) // 2, (image_size - columns) // 2, rows, columns)
    square = np.full((image_size, image_size), HU_MIN, dtype=np.float32)
    square[place.top : place.top + rows, place.left : place.left + columns] = resize(ct.hu, rows, columns)
    tensor = (np.clip(square, lower, upper) - lower) * (2.0 / (upper - lower)) - 1.0
    return tensor.astype(np.float32)[None, None], place
