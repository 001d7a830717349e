"""One axial CT slice in Hounsfield units, in the model's frame.

The model's frame: row 0 is anterior and column 0 the patient's right (the usual axial view).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HU_MIN, HU_MAX = -1024.0, 3071.0  # air ... the top of a 12-bit scanner's range
MIN_SIDE, MAX_SIDE = 16, 4096  # pixels
MAX_VOXELS = 2**30  # of a volume; 4 GiB as float32

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """The voxels of a NIfTI file: shape of its array, affine (4, 4) to RAS, the axis that counts slices.

    ``units`` are those of the affine, as nibabel calls them: "mm", "meter", "micron", or "unknown" (taken for mm).

    Slice ``frame`` of the volume is its array's entry ``frame`` along ``axis``, in the input's own grid.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    axis: int
    units: str = "mm"


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
    header: the pydicom Dataset that it was read from, without pixels and private elements; None for other formats.
        One object for all frames of a file.
    grid: the volume that it was cut out of, for a NIfTI file; None for other formats.
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
    header: Any = field(default=None, repr=False)
    grid: VolumeGrid | None = field(default=None, repr=False)

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


def wide_steps(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which steps from slice to slice are gaps: over 1.5 times the median, slices may be missing there."""
    return np.asarray(steps > 1.5 * np.median(steps)) if len(steps) else np.zeros(0, bool)


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
    wide = a.astype(np.promote_types(a.dtype, np.float32))  # float16 has no 3071
    hu = np.clip(wide, HU_MIN, HU_MAX).astype(np.float32, order="C")
    return CtSlice(hu, source=source, notes=notes, **fields)
