"""The labels of a phantom slice, and the maps that say where each organ lies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .shapes import Array


class Organ(IntEnum):
    """Values of a label map."""

    BACKGROUND = 0
    BODY = 1  # fat
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    LIVER_LEFT = 5
    LIVER_RIGHT = 6
    VESSEL = 7  # hepatic and portal veins; `AnatomySlice.portal` tells the two trees apart
    SPLEEN = 8
    KIDNEY = 9  # cortex
    MEDULLA = 10
    STOMACH = 11  # wall
    CONTENT = 12  # of the stomach or the bowel
    GAS = 13
    AORTA = 14
    IVC = 15
    LUNG = 16
    BOWEL = 17  # wall
    GALLBLADDER = 18
    SOFT = 19  # pancreas and other soft tissue
    CANAL = 20
    HEART = 21
    TABLE = 22


@dataclass(frozen=True)
class Value:
    """A density in HU: ``offset`` plus shares of the HU that the patient's organs have in this phase."""

    offset: float
    parts: tuple[tuple[Organ, float], ...] = ()

    def hu(self, mean: Array) -> float:
        """The density, from a table of HU over Organ, float32 (32,)."""
        return self.offset + sum(share * float(mean[organ]) for organ, share in self.parts)


@dataclass(frozen=True)
class Spot:
    """Pixels painted over the organs: rows and cols int (N,), share float32 (N,), how far each is covered, 0 to 1."""

    rows: Array
    cols: Array
    share: Array
    value: Value


@dataclass(frozen=True)
class AnatomySlice:
    """labels uint8 (H, W), values of Organ.

    lobes: uint8 (H, W), 0 outside, 1 the left and 2 the right lobe, vessels included.
    portal: bool (H, W), the portal venous part of VESSEL.
    body_r: float32 (H, W), 0 at the body's center and 1 at the skin.
    spots: painted over the organs, in this order.
    decoys: uint8 (H, W), where something looks like a lesion and is none: `spots.OUTSIDE` or `INSIDE` of the liver.
    """

    labels: Array
    lobes: Array
    portal: Array
    body_r: Array
    spots: tuple[Spot, ...]
    decoys: Array
