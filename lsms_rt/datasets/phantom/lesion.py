"""A lesion as one slice shows it, and the words that readers would agree on for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A lesion whose mean is this near to the liver's is called neither low nor high.
ISO_HU = 12.0
# Readers disagree about a mean this near to that limit.
ISO_SLACK_HU = 3.0
# Readers can determine neither the type nor the enhancement of smaller lesions.
LEAST_MM = 10.0
# A small spot brighter than the liver by this much may be called a calcification.
_LIKE_CALCIUM_HU = 60.0

PHASES = ("noncontrast", "arterial", "portal", "delayed")
LOBES, DENSITIES, MARGINS = ("left", "right"), ("low", "iso", "high"), ("ill-defined", "sharp")
ENHANCEMENTS = ("none", "rim", "nodular", "diffuse")
# Of a lesion whose cross-section is kept elsewhere, or unknown.
NO_MASK = np.zeros((0, 0), bool)
_DARK = frozenset(("cyst", "hemangioma", "metastasis", "hcc", "abscess"))
_BRIGHT = frozenset(("hemangioma", "metastasis", "hcc", "abscess"))
# Looks (type, enhancement, margin) that more than one type can have, and those types.
_ALIKE: dict[tuple[str, str, str], frozenset[str]] = {
    ("metastasis", "heterogeneous", "sharp"): frozenset(("metastasis", "hcc")),
    ("hcc", "heterogeneous", "ill-defined"): frozenset(("metastasis", "hcc")),
    ("metastasis", "homogeneous", "sharp"): frozenset(("metastasis", "hcc", "hemangioma")),
    ("metastasis", "homogeneous", "ill-defined"): frozenset(("metastasis", "hcc", "hemangioma")),
    ("metastasis", "rim", "sharp"): frozenset(("metastasis", "hcc", "abscess")),
}


@dataclass(frozen=True)
class Lesion:
    """A lesion as seen in ONE slice."""

    # The 3-D lesion's number in its case.
    id: int
    type: str
    # bool (H, W), its cross-section.
    mask: np.ndarray
    # "left" | "right" of the patient
    lobe: str
    # 2 sqrt(area / pi)
    diameter_mm: float
    # (to patient left, to posterior) of the liver's centroid
    centroid_mm: tuple[float, float]
    # "low" | "iso" | "high", measured against the surrounding liver
    density: str
    # "none" | "rim" | "nodular" | "homogeneous" | "heterogeneous"
    enhancement: str
    # "sharp" | "ill-defined"
    margin: str
    # The mean minus the surrounding liver's median; None if not recorded (version 1)
    hu_difference: float | None = None


def numbered(lesions: Sequence[Lesion], shape: tuple[int, ...]) -> np.ndarray:
    """Return where the lesions of a slice, at most 255, are: uint8 (H, W), 0 or the lesion's place from 1 on."""
    index = np.zeros(shape, np.uint8)
    for place, lesion in enumerate(lesions, 1):
        index[lesion.mask] = place
    return index


def density_of(hu_difference: float) -> str:
    """Return the density word for a mean that differs from the liver's by ``hu_difference``."""
    return "low" if hu_difference < -ISO_HU else "high" if hu_difference > ISO_HU else "iso"


def enhancement_class(lesion: Lesion) -> str:
    """Return one of ENHANCEMENTS: the sentences call ``homogeneous`` and ``heterogeneous`` both "enhancing"."""
    return "diffuse" if lesion.enhancement in ("homogeneous", "heterogeneous") else lesion.enhancement


def densities_near(hu_difference: float) -> frozenset[str]:
    """Return the density words that some reader could choose for a mean with this difference."""
    return frozenset(density_of(hu_difference + slack) for slack in (-ISO_SLACK_HU, 0.0, ISO_SLACK_HU))


def possible_densities(lesion: Lesion) -> frozenset[str]:
    """Return the density words that some reader could choose; one word if all agree."""
    if lesion.hu_difference is None:
        return frozenset((lesion.density,))
    return densities_near(lesion.hu_difference)


def possible_types(lesion: Lesion) -> frozenset[str]:
    """Return the types that some reader could take the lesion for; one type if all agree."""
    own = frozenset((lesion.type,))
    if lesion.type == "calcification":
        return own
    if lesion.diameter_mm < LEAST_MM or (lesion.enhancement == "none" and lesion.type != "cyst"):
        like_calcium = lesion.density == "high" and (lesion.hu_difference or 0.0) > _LIKE_CALCIUM_HU
        calcification = frozenset(("calcification",)) if like_calcium else frozenset()
        return own | calcification | (_BRIGHT if lesion.density == "high" else _DARK)
    return _ALIKE.get((lesion.type, lesion.enhancement, lesion.margin), own)


def possible_enhancements(lesion: Lesion) -> frozenset[str]:
    """Return the words of ENHANCEMENTS that some reader could choose; one word if all agree."""
    own = enhancement_class(lesion)
    if lesion.type == "calcification":
        return frozenset((own,))
    if lesion.diameter_mm < LEAST_MM:
        return frozenset(ENHANCEMENTS)
    # Without an earlier scan nobody can say whether a gray, evenly dark lesion has enhanced; water has not.
    if own in ("none", "diffuse") and lesion.density != "high" and lesion.type != "cyst":
        return frozenset(("none", "diffuse"))
    return frozenset((own,))
