"""The labels of a phantom slice, and the maps that show where each organ lies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .shapes import Array


class Organ(IntEnum):
    """The values of a label map."""

    BACKGROUND = 0
    # Fat.
    BODY = 1
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    LIVER_LEFT = 5
    LIVER_RIGHT = 6
    # Hepatic and portal veins; `AnatomySlice.portal` distinguishes the two trees.
    VESSEL = 7
    SPLEEN = 8
    # Cortex.
    KIDNEY = 9
    MEDULLA = 10
    # Wall.
    STOMACH = 11
    # Of the stomach or the bowel.
    CONTENT = 12
    GAS = 13
    AORTA = 14
    IVC = 15
    LUNG = 16
    # Wall.
    BOWEL = 17
    GALLBLADDER = 18
    # Pancreas and other soft tissue.
    SOFT = 19
    CANAL = 20
    HEART = 21
    TABLE = 22


@dataclass(frozen=True)
class Value:
    """A density in HU: ``offset`` plus shares of the HU that the patient's organs have in this phase."""

    offset: float
    parts: tuple[tuple[Organ, float], ...] = ()

    def hu(self, mean: Array) -> float:
        """Return the density, from a table of HU over Organ, float32 (32,)."""
        return self.offset + sum(share * float(mean[organ]) for organ, share in self.parts)


@dataclass(frozen=True)
class Spot:
    """Pixels painted over the organs: rows and cols int (N,); share float32 (N,), 0 to 1, how much is covered."""

    rows: Array
    cols: Array
    share: Array
    value: Value


@dataclass(frozen=True)
class AnatomySlice:
    """The maps of one slice.

    labels: uint8 (H, W), values of Organ.
    lobes: uint8 (H, W), 0 outside, 1 the left and 2 the right lobe, vessels included.
    portal: bool (H, W), the portal venous part of VESSEL.
    body_r: float32 (H, W), 0 at the body's center and 1 at the skin.
    spots: painted over the organs, in this order.
    decoys: uint8 (H, W), where something merely looks like a lesion: `spots.OUTSIDE` or `spots.INSIDE` the liver.
    """

    labels: Array
    lobes: Array
    portal: Array
    body_r: Array
    spots: tuple[Spot, ...]
    decoys: Array
