"""What ImageType says about the pixels: maps and projections are rejected, derived images are read with a note.

Vendors write their own terms after the first three values, e.g. ``CT_SOM5 SPI`` or ``MAX IP``, so words are looked for.
Messages repeat none of them, only the kind of image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

# kind of image -> its words in ImageType; their pixels are not HU of a slice
_REJECTED = {
    "a localizer (scout view), not an axial slice": ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"),
    "a maximum or minimum intensity projection": ("MIP", "MAXIP", "MINIP", "MAX IP", "MIN IP", "PROJECTION", "RAYSUM"),
    "a rendering or a screen capture": (
        *("VRT", "SSD", "VOLUME RENDERED", "VOLUME RENDERING", "SURFACE RENDERING"),
        *("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SCREENSHOT", "FUSION"),
    ),
    "a map of a material, density or atomic number": (
        *("MAT SPECIFIC", "MAT FRACTIONAL", "MAT VALUE BASED", "MAT MODIFIED", "EFF ATOMIC NUM", "ELECTRON DENSITY"),
        *("IODINE", "CALCIUM MAP", "URIC ACID", "FRACTION", "ZEFF", "Z EFF", "ZEFFECTIVE", "Z EFFECTIVE", "RHO Z"),
        "GSI MD",
    ),
    "a perfusion map": (
        *("CBF", "CBV", "RCBF", "RCBV", "MTT", "TTP", "TMAX", "PBV", "PERFUSED BLOOD VOLUME"),
        *("BLOOD FLOW", "BLOOD VOLUME", "FLOW", "PERF MAP", "PERMEABILITY"),
    ),
    "a difference, ratio or deviation of images": (
        *("SUBTRACTION", "SUBTRACTED", "DIFFERENCE", "DIVISION", "MULTIPLICATION", "STD DEVIATION"),
    ),
}
# whole values; in an original image they describe how it was acquired
_REJECTED_IF_DERIVED = {
    "a maximum or minimum intensity projection": ("MAX", "MIN", "MAXIMUM", "MINIMUM"),
    "a perfusion map": ("PERFUSION", "QUANTITY"),
    "a rendering or a screen capture": ("3D",),
    # CALCIUM SCORE is a usual image, and so is one whose compression ratio stands there.
    "a map of a material, density or atomic number": ("CALCIUM",),
    "a difference, ratio or deviation of images": ("RATIO",),
}
# codes of DerivationCodeSequence, coding scheme DCM
_REJECTED_CODES = {
    "a maximum or minimum intensity projection": ("113048", "113051", "113078", "113079"),
    "a rendering or a screen capture": ("113074", "113075"),
    "a difference, ratio or deviation of images": ("113046", "113053", "113062"),
}


def _one_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f" (?:{'|'.join(phrases)}) ")


_WORD = re.compile("[A-Z]+")
_PHRASES = {kind: _one_of(phrases) for kind, phrases in _REJECTED.items()}
_COMPUTED = _one_of(("VMI", "MONO", "MONOE", "MONOENERGETIC", "KEV", "VNC", "VUE", "MAT REMOVED"))
_COMPUTED_NOTE = (
    "ImageType: a virtual monoenergetic or virtual unenhanced image, its HU differ from those of a usual CT"
)
_DERIVED_NOTE = "ImageType: a reformatted, averaged or otherwise derived image is taken as a slice in HU"
# value 3 of slices as they were reconstructed; all but the first two are of Enhanced CT
_USUAL = frozenset(
    (
        *("AXIAL", "HELIX", "VOLUME", "ANGIO", "ATTENUATION", "CARDIAC", "CARDIAC_GATED", "CARDRESP_GATED", "DYNAMIC"),
        *("FLUOROSCOPY", "MOTION", "PERFUSION", "PRE_CONTRAST", "POST_CONTRAST", "REFERENCE", "RESP_GATED", "REST"),
        *("STATIC", "STRESS", "WHOLE_BODY", "NON_PARALLEL", "PARALLEL"),
    )
)


def check_image_type(ds: Dataset, source: str) -> None:
    """Raise InputError if the image, or one of its frames, is no slice in HU by its ImageType or derivation."""
    codes = {str(item.get("CodeValue")) for item in ds.get("DerivationCodeSequence") or []}
    for kind, rejected in _REJECTED_CODES.items():
        if codes & set(rejected):
            raise InputError(f"{source}: {kind} (DerivationCodeSequence); give the original axial series")
    for values in _types(ds):
        text = _words(values)
        kinds = [kind for kind, phrases in _PHRASES.items() if phrases.search(text)]
        if values[0] == "DERIVED":
            kinds += [kind for kind, words in _REJECTED_IF_DERIVED.items() if set(values) & set(words)]
        if kinds:
            raise InputError(f"{source}: {kinds[0]} (ImageType); give the original axial series")


def image_type_note(ds: Dataset) -> str | None:
    """Return a note if an image that :func:`check_image_type` accepts was derived from others."""
    all_values = list(_types(ds))
    if any(_COMPUTED.search(_words(values)) for values in all_values):
        return _COMPUTED_NOTE
    if any("SECONDARY" in values or (len(values) > 2 and values[2] not in _USUAL) for values in all_values):
        return _DERIVED_NOTE
    return None


def _types(ds: Dataset) -> Iterator[list[str]]:
    """Yield the values of ImageType, then those of each distinct FrameType, in capitals; none that is empty."""
    shared, per_frame = (ds.get(f"{kind}FunctionalGroupsSequence") or [] for kind in ("Shared", "PerFrame"))
    found: list[Any] = [ds.get("ImageType")]
    for group in (*shared, *per_frame):
        found += [item.get("FrameType") for item in group.get("CTImageFrameTypeSequence") or []]
    lists = ([value] if isinstance(value, str) else list(value or []) for value in found)
    for values in dict.fromkeys(tuple(str(v).strip().upper() for v in values) for values in lists):
        if any(values):
            yield list(values)


def _words(values: list[str]) -> str:
    """The words of all values, between spaces as in ``_one_of``: 70KEV and KEV70 contain KEV, MIP_1 contains MIP."""
    return "|".join(f" {' '.join(_WORD.findall(value))} " for value in values)
