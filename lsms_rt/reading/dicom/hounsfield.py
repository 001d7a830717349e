"""Stored values to Hounsfield units: by the file's rescale, by what the caller states, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.ct_slice import HU_MAX, HU_MIN, doubts_about
from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated

from .geometry import EXPORT_AGAIN, functional_group, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# The standard's own terms, which messages may repeat.
_RESCALE_TYPES = frozenset(("OD", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"))
# No scanner writes others; beyond them stored values would all be equal, or overflow.
_MIN_SLOPE, _MAX_SLOPE, _MAX_INTERCEPT = 1e-6, 1e4, 1e5
# HU: padding up to here is air or less, and may be replaced by air wherever it lies
_PADDING_IS_AIR = -900.0
# Of signed stored values that are HU, at least this share is air or lung; -2000 and the like are padding.
_MIN_AIR = 0.01
_AIR = (-1100, -500)
# Unmeasured air must outnumber shifted tissue by this.
_FEW_SHIFTED = 20
# Where soft tissue lies in stored values that lack an intercept of -1024.
_SHIFTED_TISSUE = (850, 1250)


def check_bits(ds: Dataset, source: str) -> None:
    """Raise InputError if stored values do not lie in the lower bits, as CT's must."""
    stored, high = ds.get("BitsStored"), ds.get("HighBit")
    if stored not in (None, "") and high not in (None, "") and int(high) != int(stored) - 1:
        what = f"HighBit is {int(high)} with BitsStored {int(stored)}, {int(stored) - 1} is needed"
        raise InputError(f"{source}: {what}, so the scale of the values is unknown; {EXPORT_AGAIN}")


def hounsfield(
    ds: Dataset, n: int, raw: NDArray[Any], source: str, stated: Stated, notes: list[str]
) -> NDArray[np.float32]:
    """Rescale the stored values of a frame to HU.

    Args:
        ds: the dataset.
        n: the frame's index.
        raw: integers (H, W), its stored values.
        source: a short name for messages.
        stated: facts that the dataset does not hold.
        notes: assumptions are appended.

    Returns:
        float32 (H, W) in [-1024, 3071], in the input's grid; padding is -1024.

    Raises:
        InputError: the unit is not HU, or slope and intercept are unknown or implausible.
    """
    low, high = _padding_range(ds, raw, source)
    padding = (raw >= low) & (raw <= high)
    slope, intercept = _rescale(ds, n, raw, padding, source, stated, notes)
    hu = np.empty(raw.shape, np.float32)
    # in double precision, without a copy of that size
    for row, values in zip(hu, raw, strict=True):
        row[:] = values * slope + intercept
    if padding.any() and max(low * slope, high * slope) + intercept > _PADDING_IS_AIR:
        padding = _outside(padding, notes)
    notes += doubts_about(hu, ~padding)
    np.clip(hu, HU_MIN, HU_MAX, out=hu)
    hu[padding] = HU_MIN
    return hu


def _rescale(
    ds: Dataset, n: int, raw: NDArray[Any], padding: NDArray[np.bool_], source: str, stated: Stated, notes: list[str]
) -> tuple[float, float]:
    """Return (slope, intercept) of frame ``n``."""
    transform = functional_group(ds, n, "PixelValueTransformationSequence")
    kind = transform.get("RescaleType")
    kind = kind.strip().upper() if isinstance(kind, str) else kind
    if kind not in (None, "", "HU"):
        what = kind if isinstance(kind, str) and kind in _RESCALE_TYPES else "another unit"
        raise InputError(f"{source}: RescaleType is {what}, not HU; give the original CT image")
    found = [numbers(transform, f"Rescale{name}", 1, source) for name in ("Slope", "Intercept")]
    slope, intercept = (value[0] if value else None for value in found)
    if slope is None or intercept is None:
        if "ModalityLUTSequence" in ds:
            raise InputError(f"{source}: uses a Modality LUT, which is not supported; give the original CT image")
        missing = "RescaleSlope or RescaleIntercept is missing"
        if stated.rescale is not None:
            # Integers would overflow with stored values of 16 bits.
            slope = float(stated.rescale[0]) if slope is None else slope
            intercept = float(stated.rescale[1]) if intercept is None else intercept
            notes.append(f"{missing}: slope {slope:g} and intercept {intercept:g} are used, as stated")
        elif slope in (None, 1.0) and intercept in (None, 0.0) and _are_hu(raw, padding):
            slope, intercept = 1.0, 0.0
            notes.append(f"{missing}: the stored values are taken as HU, since they are signed and contain air")
        else:
            fix = "--rescale SLOPE INTERCEPT, in Python rescale=(slope, intercept)"
            raise InputError(f"{source}: {missing}, so HU are unknown; {EXPORT_AGAIN}, or state them: {fix}")
    if not (_MIN_SLOPE <= abs(slope) <= _MAX_SLOPE and abs(intercept) <= _MAX_INTERCEPT):
        what = f"RescaleSlope is {slope:g} and RescaleIntercept {intercept:g}"
        limits = f"a slope of {_MIN_SLOPE:g} to {_MAX_SLOPE:g} and an intercept up to {_MAX_INTERCEPT:g} are supported"
        raise InputError(f"{source}: {what}; {limits}, of either sign; {EXPORT_AGAIN}")
    return slope, intercept


def _are_hu(raw: NDArray[Any], padding: NDArray[np.bool_]) -> bool:
    """Return whether stored values can only be HU: signed, with air, and with less at 1000 where tissue would be."""
    if raw.dtype.kind != "i":
        return False
    is_air = (raw >= _AIR[0]) & (raw <= _AIR[1]) & ~padding
    shifted = np.count_nonzero((raw >= _SHIFTED_TISSUE[0]) & (raw <= _SHIFTED_TISSUE[1]))
    # Many writers fill what is outside of a round field of view with one value, which was not measured.
    measured = np.count_nonzero(is_air & ~_outside(raw == raw[0, 0], []))
    if measured >= _MIN_AIR * raw.size:
        return bool(measured > shifted)
    # Nothing but one value of air around the body: evidence only where hardly anything is shifted.
    air = np.count_nonzero(is_air)
    return bool(air >= _MIN_AIR * raw.size and air > _FEW_SHIFTED * shifted)


def _padding_range(ds: Dataset, raw: NDArray[Any], source: str) -> tuple[int, int]:
    """Return the lowest and highest stored value that mean "not measured"; (1, 0), an empty range, if none does."""
    ends = [numbers(ds, name, 1, source) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return 1, 0
    # Some writers store the attribute with the opposite signedness of the pixels: 63536 for -2000.
    bits = 8 * raw.dtype.itemsize
    low = -(2 ** (bits - 1)) if raw.dtype.kind == "i" else 0
    values = [(int(end[0]) - low) % 2**bits + low for end in ends if end is not None]
    return min(values), max(values)


def _outside(padding: NDArray[np.bool_], notes: list[str]) -> NDArray[np.bool_]:
    """Return the padding that reaches the border along its row or column; what lies inside may be tissue."""
    outside = np.zeros_like(padding)
    # all that is outside of a circle, or of any convex field of view
    for axis in (0, 1):
        outside |= np.logical_and.accumulate(padding, axis)
        outside |= np.flip(np.logical_and.accumulate(np.flip(padding, axis), axis), axis)
    inside = np.count_nonzero(padding & ~outside)
    if inside:
        notes.append(f"PixelPaddingValue is a value of tissue: {inside} such pixels inside the image are kept")
    return outside
