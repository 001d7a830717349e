"""The table of lesion types: their names in English, how frequent and how large they are.

A new type goes at the end, because its position is its class index in training; it needs a look in `looks.LOOKS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LesionType:
    """A type of lesion.

    nouns: (singular, plural) pairs.  odds: its weight when a case draws its mix of types.  sizes_mm: its smallest and
    largest diameter.  plain: whether readers can identify it without contrast medium.
    """

    name: str
    nouns: tuple[tuple[str, str], ...]
    odds: float
    sizes_mm: tuple[float, float] = (10.0, 58.0)
    plain: bool = False


_TABLE = (
    LesionType(
        "cyst",
        (("cyst", "cysts"), ("cystic lesion", "cystic lesions"), ("simple cyst", "simple cysts")),
        odds=1.0,
        plain=True,
    ),
    LesionType("hemangioma", (("hemangioma", "hemangiomas"), ("haemangioma", "haemangiomas")), odds=1.3),
    LesionType("metastasis", (("metastasis", "metastases"), ("metastatic lesion", "metastatic lesions")), odds=1.3),
    LesionType("hcc", (("HCC", "HCCs"), ("hepatocellular carcinoma", "hepatocellular carcinomas")), odds=0.8),
    LesionType("abscess", (("abscess", "abscesses"), ("liver abscess", "liver abscesses")), odds=0.9),
    LesionType(
        "calcification",
        (("calcification", "calcifications"), ("calcified focus", "calcified foci")),
        odds=0.6,
        sizes_mm=(5.0, 20.0),
        plain=True,
    ),
)
LESION_TYPES = {one.name: one for one in _TABLE}
TYPES = tuple(LESION_TYPES)
