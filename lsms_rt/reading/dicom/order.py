"""The order of a stack: slices from feet to head by one normal, copies left out."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from lsms_rt.ct_slice import CtSlice, usual_step, wide_steps
from lsms_rt.errors import InputError
from lsms_rt.reading.quiet import quiet_pydicom

from .geometry import EXPORT_AGAIN, SAME_POSITION_MM, functional_group, numbers, unit_normal

# of the normals of a stack: at 500 mm from the origin it moves a slice by half a millimeter
SAME_NORMAL = 1e-3
_log = logging.getLogger("lsms_rt")


def feet_to_head(
    slices: list[CtSlice], source: str | None = None, acquisitions: dict[str, int] | None = None
) -> list[CtSlice]:
    """Sort slices by their position along their common normal; gaps are logged.

    Args:
        slices: the slices of one series.
        source: its name in messages; None takes the first slice's.
        acquisitions: number of files per AcquisitionNumber, for the message about duplicate positions.

    Raises:
        InputError: positions are unknown, several slices have the same one, or slices are not parallel.
    """
    if len(slices) < 2:
        return slices
    source = source or slices[0].source
    unknown = sum(ct.position_mm is None for ct in slices)
    if unknown:
        raise InputError(
            f"{source}: {unknown} of {len(slices)} slices have no ImagePositionPatient or no "
            f"ImageOrientationPatient, so their order is unknown; {EXPORT_AGAIN}, or give single slices"
        )
    slices = sorted(_along_one_normal(slices, source), key=lambda ct: ct.position_mm or 0.0)
    steps = np.diff([ct.position_mm or 0.0 for ct in slices])
    same = int(np.count_nonzero(steps < SAME_POSITION_MM))
    if same:
        listed = ", ".join(f"{name or 'absent'}: {n} files" for name, n in sorted((acquisitions or {}).items())[:20])
        raise InputError(
            f"{source}: {same} of {len(slices)} slices have duplicate positions (several phases, or copies); "
            f"put each phase in its own folder{f' (AcquisitionNumber {listed})' if listed else ''}"
        )
    gaps = int(np.count_nonzero(wide_steps(steps)))
    if gaps:
        _log.warning(
            "gaps: %d steps between slices are over 1.5 x the usual %.2f mm, slices may be missing",
            gaps,
            usual_step(steps),
        )
    return slices


def _along_one_normal(slices: list[CtSlice], source: str) -> list[CtSlice]:
    """Return the slices with positions along the mean of their normals: their own may differ in the last digits.

    Slices that do not say their orientation keep their positions.
    """
    planes = [_plane(ct) for ct in slices]
    known = [plane for plane in planes if plane is not None]
    if len(known) < len(planes):
        return slices
    normals = np.array([normal for normal, _ in known])
    apart = float(np.ptp(normals, axis=0).max())
    if apart > SAME_NORMAL:
        raise InputError(
            f"{source}: {len(slices)} slices are not parallel, their normals differ by up to {apart:.4f}; "
            f"{EXPORT_AGAIN}, or put each orientation in its own folder"
        )
    mean = normals.mean(axis=0)
    mean /= np.linalg.norm(mean)
    return [replace(ct, position_mm=float(mean @ position)) for ct, (_, position) in zip(slices, known, strict=True)]


def _plane(ct: CtSlice) -> tuple[np.ndarray, np.ndarray] | None:
    """Return normal and position of a slice; None if its header does not have both."""
    if ct.header is None:
        return None
    with quiet_pydicom():
        groups = (functional_group(ct.header, ct.frame, f"Plane{name}Sequence") for name in ("Orientation", "Position"))
        orientation, position = (
            numbers(group, f"Image{name}Patient", count, ct.source)
            for group, name, count in zip(groups, ("Orientation", "Position"), (6, 3), strict=True)
        )
    return None if orientation is None or position is None else (unit_normal(orientation), np.array(position))


def without_copies(slices: list[CtSlice]) -> list[CtSlice]:
    """Remove copies: slices with the same SOPInstanceUID, frame, geometry and pixels as another."""
    kept: list[CtSlice] = []
    # -> index in ``kept``
    by_instance: dict[tuple[str, int], int] = {}
    for ct in slices:
        key = (ct.sop_instance_uid or "", ct.frame)
        first = by_instance.get(key)
        if not ct.sop_instance_uid or first is None or not _are_copies(ct, kept[first]):
            by_instance.setdefault(key, len(kept))
            kept.append(ct)
        else:
            note = "the file of this slice exists more than once: identical copies are left out"
            if note not in kept[first].notes:
                kept[first] = replace(kept[first], notes=(*kept[first].notes, note))
    return kept


def _are_copies(a: CtSlice, b: CtSlice) -> bool:
    geometry = [(ct.position_mm, ct.spacing_mm, ct.flips, ct.transposed) for ct in (a, b)]
    return geometry[0] == geometry[1] and np.array_equal(a.hu, b.hu)
