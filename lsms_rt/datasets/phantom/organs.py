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
    VESSEL = 7  # inside the liver; `AnatomySlice.portal` tells the two trees apart
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
class AnatomySlice:
    """labels uint8 (H, W), values of Organ.

    lobes: uint8 (H, W), 0 outside, 1 the left and 2 the right lobe, vessels included.
    portal: bool (H, W), the portal venous part of VESSEL.
    body_r: float32 (H, W), 0 at the body's centre and 1 at the skin.
    """

    labels: Array
    lobes: Array
    portal: Array
    body_r: Array
