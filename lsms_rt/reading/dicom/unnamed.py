"""Files without a SeriesInstanceUID: one series only where all that is left agrees, or where the caller states it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated

from .header import PHASES, Header
from .phases import places_of

# fewest slices whose even spacing is evidence
_FEWEST = 3
# of the median step, and mm: positions are stored with two decimals or more
_EVEN, _ROUNDED = 0.02, 0.021
_NAMES = [attribute.name for attribute in PHASES]


def check_unnamed(headers: Sequence[Header], stated: Stated, name: str) -> tuple[str, ...]:
    """Check that the files of a stack are one series, if they do not say so themselves.

    They are of one patient, study, frame of reference, SeriesNumber, orientation and matrix: a stack is.

    Args:
        headers: the files.
        stated: whether the caller states it.
        name: the input's name in messages.

    Returns:
        A note about what was assumed, or nothing.

    Raises:
        InputError: it cannot be shown.
    """
    if len(headers) == 1 or headers[0].key.uid:
        return ()
    if stated.as_one_series:
        return ("SeriesInstanceUID is missing: the files are taken as one series, as stated",)
    if doubt := _doubt(headers):
        raise InputError(
            f"{name}: {len(headers)} files without a SeriesInstanceUID may be several series ({doubt}); give one "
            "series only, and state that it is one with --as-one-series (as_one_series=True in Python)"
        )
    return ("SeriesInstanceUID is missing: the files agree in all else, and are taken as one series",)


def _doubt(headers: Sequence[Header]) -> str:
    """Return what speaks against one series; "" if nothing does."""
    if (count := len({header.word for header in headers})) > 1:
        return f"{count} values that are no UIDs stand in its place"
    frames = [frame for header in headers for frame in header.frames]
    for name in ("AcquisitionNumber", "PixelSpacing"):
        count = len({frame.phase[_NAMES.index(name)] for frame in frames})
        if count > 1:
            return f"{count} values of {name}"
    named = {header.instance: header.image for header in headers if header.instance}
    images = [*named.values(), *(header.image for header in headers if not header.instance)]
    images = [image for image in images if image is not None]
    if len(set(images)) < len(images):
        return f"{len(images) - len(set(images))} values of InstanceNumber occur more than once"
    places = places_of(frames)
    if places is None:
        return "ImagePositionPatient is absent"
    # Copies of a file have one position.
    steps = np.diff(np.unique(np.round(places, 3)))
    if len(steps) < _FEWEST - 1:
        return f"{len(steps) + 1} positions, {_FEWEST} show that slices are evenly spaced"
    if np.ptp(steps) > max(_EVEN * float(np.median(steps)), _ROUNDED):
        return f"slices are {steps.min():.2f} to {steps.max():.2f} mm apart"
    return ""
