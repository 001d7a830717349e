"""One axial CT slice in Hounsfield units, in the model's frame.

The model's frame: row 0 is anterior and column 0 the patient's right (the usual axial view).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import InputError, chain_cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

# HU: air to the 12-bit maximum
HU_MIN, HU_MAX = -1024.0, 3071.0
# HU: fat, and the air around a body, are below
FAT = -50.0
# HU: lower values are padding, not air
PADDING = -1100.0
# The share of values that may be so low by chance, where they are not HU.
FEW = 0.001
# pixels along a side
MIN_SIDE, MAX_SIDE = 16, 4096

_T = TypeVar("_T", bound=np.generic)
_log = logging.getLogger("lsms_rt")


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """The voxel grid of a NIfTI file.

    Attributes:
        shape: shape of the file's array.  Slice ``frame`` of the volume is entry ``frame`` along ``axis``.
        affine: float64 (4, 4), voxel indices to RAS coordinates.
        axis: the axis of the array that counts slices.
        units: units of the affine, in nibabel's words: "mm", "meter", "micron", or "unknown" (treated as mm).
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    axis: int
    units: str = "mm"


@dataclass(frozen=True, eq=False)
class CtSlice:
    """One axial CT slice.

    Attributes:
        hu: float32 (H, W), HU in [-1024, 3071], in the model's frame.
        spacing_mm: (between rows, between columns) in the model's frame; None if unknown.
        flips: whether (rows, columns) of the input's grid were reversed, after any transposition.
        transposed: whether rows and columns of the input's grid were swapped.
        source: a short name for messages.
        position_mm: distance along the slice normal, growing from feet to head; None if unknown.
        sop_instance_uid: of a DICOM image; None for other formats.
        frame: index of the frame in a multi-frame file, or of the slice in a volume.
        notes: assumptions that were made about the image; they contain no values from the file.
        side_known: whether the file, or the caller, states which side is the patient's right.  If not, ``hu`` is only
            assumed to be in the model's frame, and pictures show no R and L.
        header: the pydicom Dataset, without pixels and private elements; None for other formats.  All frames of a file
            share one object.
        grid: the volume that the slice belongs to, for a NIfTI file; None for other formats.
    """

    hu: NDArray[np.float32] = field(repr=False)
    spacing_mm: tuple[float, float] | None = None
    flips: tuple[bool, bool] = (False, False)
    transposed: bool = False
    source: str = field(default="array", kw_only=True)
    position_mm: float | None = field(default=None, kw_only=True)
    sop_instance_uid: str | None = field(default=None, repr=False, kw_only=True)
    frame: int = field(default=0, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    side_known: bool = field(default=False, kw_only=True)
    header: Any = field(default=None, repr=False, kw_only=True)
    grid: VolumeGrid | None = field(default=None, repr=False, kw_only=True)

    @staticmethod
    def to_model_frame(a: NDArray[_T], flips: tuple[bool, bool], transposed: bool) -> NDArray[_T]:
        """Turn an array (H, W) from the input's grid into the model's frame; the result is contiguous."""
        a = a.T if transposed else a
        return np.ascontiguousarray(a[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1])

    @chain_cut
    def to_input_grid(self, a: NDArray[_T]) -> NDArray[_T]:
        """Turn an array (H, W) from the model's frame into the input's grid; the result is contiguous.

        Raises:
            InputError: ``a`` does not have the shape of ``hu``.
        """
        if a.shape != self.hu.shape:
            raise InputError(f"{self.source}: an array of shape {a.shape} for a slice of {self.hu.shape}; resample it")
        a = a[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]
        return np.ascontiguousarray(a.T if self.transposed else a)


def wide_steps(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which steps between neighboring slices are gaps: over 1.5 times the usual one, slices may be missing."""
    return np.asarray(steps > 1.5 * usual_step(steps)) if len(steps) else np.zeros(0, bool)


def usual_step(steps: NDArray[np.float64]) -> float:
    """Return the median of the steps between slices; of an even number the smaller middle one, since a gap is wide."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def log_notes(slices: Sequence[CtSlice]) -> None:
    """Log each kind of note once, with the number of slices that have it; only the numbers in it may differ."""
    first: dict[str, str] = {}
    counts = Counter(re.sub(r"\d+", "", note) for ct in slices for note in ct.notes)
    for note in (note for ct in slices for note in ct.notes):
        first.setdefault(re.sub(r"\d+", "", note), note)
    for kind, count in counts.items():
        _log.warning("%s (%d of %d slices)", first[kind], count, len(slices))


def doubts_about(hu: NDArray[Any], measured: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
    """Return notes on values that a CT slice rarely has.

    Args:
        hu: (H, W), before it is clipped.
        measured: bool (H, W), False where padding is; None if all of it is measured.
    """
    where: Any = True if measured is None else measured
    notes: tuple[str, ...] = ()
    seen = (hu >= PADDING) & where
    if np.count_nonzero((hu < FAT) & seen) <= FEW * np.count_nonzero(seen):
        notes += (
            f"hardly any value is below {FAT:.0f} HU, as fat and air are: values are taken as Hounsfield units, "
            "check that they are",
        )
    if np.count_nonzero((hu > HU_MAX) & where) > hu.size / 10:
        notes += (f"over a tenth of the values is above {HU_MAX:.0f} HU: check that they are Hounsfield units",)
    return notes


def check_shape(rows: int, columns: int, source: str) -> None:
    """Raise InputError for a slice that is too small to show anatomy, or too large for memory."""
    if min(rows, columns) < MIN_SIDE or max(rows, columns) > MAX_SIDE:
        limits = f"{MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}"
        raise InputError(f"{source}: a slice of {rows}x{columns} pixels; supported are {limits}")


def check_array(shape: tuple[int, ...], dtype: np.dtype[Any], source: str) -> None:
    """Raise InputError for arrays that are not one slice of numbers, before their values are read."""
    if len(shape) != 2:
        several = ", or a volume as a list of slices" if len(shape) == 3 else ""
        raise InputError(f"{source}: shape {shape} has {len(shape)} axes; give one slice (H, W) in HU{several}")
    if dtype.kind not in "iuf":
        raise InputError(f"{source}: dtype {dtype} is not a CT image; give integers or floats in HU")
    check_shape(shape[0], shape[1], source)


def slice_from_array(a: NDArray[Any], source: str = "array", *, doubtful: bool = True, **fields: Any) -> CtSlice:
    """Build a ``CtSlice`` from an array in HU.

    Args:
        a: (H, W), integers or floats in HU, in the model's frame: the usual axial view.
        source: a short name for messages.
        doubtful: note values that a CT slice rarely has.
        **fields: other fields of ``CtSlice``.

    Raises:
        InputError: ``a`` is not 2-D, not numeric, not finite, too small or too large.
    """
    check_array(a.shape, a.dtype, source)
    bad = int(a.size - np.count_nonzero(np.isfinite(a)))
    if bad:
        raise InputError(f"{source}: {bad} of {a.size} values are NaN or infinite; use -1024 for air")
    # float16 cannot represent 3071
    wide = a.astype(np.promote_types(a.dtype, np.float32))
    notes = (*fields.pop("notes", ()), *(doubts_about(wide) if doubtful else ()))
    hu = np.clip(wide, HU_MIN, HU_MAX).astype(np.float32, order="C")
    return CtSlice(hu, source=source, notes=notes, **fields)
