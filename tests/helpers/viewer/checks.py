"""What must be seen of each object, and what was seen."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread

from .page import NotShown, Viewer
from .written import SliceShown, measures

# Difference of the largest and the smallest of red, green and blue: of a gray pixel, of a pixel under a mask.
MAX_GRAY, MIN_COLOR = 12, 20
# Distance of two colors.
MIN_DISTANCE = 25
# Share of sampled points that must be as expected, and the mean difference of an image of a key image, of 255.
MIN_SHARE, MAX_DIFFERENCE = 0.98, 12


def check_masks(viewer: Viewer, labels: list[str], shown: SliceShown) -> dict[str, Any]:
    """Check that all segments are loaded, and drawn where the masks are and nowhere else, each in its color."""
    viewer.wait(lambda: sorted(viewer.segments()) == sorted(labels), f"{len(labels)} segments with their labels")
    viewer.scroll_to(shown.instance)
    seen: dict[str, Any] = {}

    def drawn() -> bool:
        seen.clear()
        seen.update(_regions(viewer, shown))
        return all(region["as_expected"] >= MIN_SHARE for region in seen["regions"]) and seen["colors_differ"]

    try:
        viewer.wait(drawn, "masks where they should be")
    except NotShown as error:
        raise NotShown(f"{error}: {seen}") from error
    return {"segments": viewer.segments(), "slice": shown.instance, **seen}


def _regions(viewer: Viewer, shown: SliceShown) -> dict[str, Any]:
    """Compare what is drawn with all regions of a slice."""
    regions, colors = [], []
    for region in shown.regions:
        pixels = viewer.colors(region.points)
        spread = np.ptp(pixels, axis=1)
        right = spread >= MIN_COLOR if region.sentences else spread <= MAX_GRAY
        row: dict[str, Any] = {"sentences": sorted(region.sentences), "points": len(pixels)}
        color = np.median(pixels, axis=0)
        regions.append(row | {"as_expected": round(float(right.mean()), 3), "color": color.astype(int).tolist()})
        if region.sentences:
            colors.append(color)
    distances = [float(np.linalg.norm(a - b)) for a, b in combinations(colors, 2)]
    return {"regions": regions, "colors_differ": min(distances, default=MIN_DISTANCE) >= MIN_DISTANCE}


def check_panel(viewer: Viewer, labels: list[str]) -> None:
    """Open the panel of segmentations and check that it lists all labels."""
    viewer.page.locator('[data-cy="panelSegmentation-btn"]').click()
    viewer.wait(lambda: all(label in viewer.text() for label in labels), "labels in the panel of segmentations")


def check_report(viewer: Viewer, report: Path) -> dict[str, Any]:
    """Check that the page shows the measures of every group of a report; at least volume and diameter."""
    seen = []
    for group in measures(report):
        if seen:
            viewer.page.locator('[data-cy="viewport-action-arrows-right"]').click()
        first = next(iter(group.values()))
        viewer.wait(lambda value=first: value in viewer.text(), f"measures of group {len(seen) + 1} of the report")  # type: ignore[misc]
        text = viewer.text()
        row = {name: f"{name}: {value}" in text for name, value in group.items()}
        if not sum(row.values()) >= 2:
            raise NotShown(f"at least two measures of group {len(seen) + 1} of the report: {row}")
        seen.append(row)
    if not seen:
        raise NotShown("a measurement group in the report")
    return {"shown": seen}


def check_key_image(viewer: Viewer, image: Path) -> dict[str, Any]:
    """Check that the page shows the pixels of a key image."""
    expected = Image.fromarray(dcmread(image).pixel_array)
    seen = {"difference": 255.0}

    def drawn() -> bool:
        canvas = viewer.page.locator('[data-cy="viewport-pane"] canvas').first
        if not canvas.count():
            return False
        box = canvas.bounding_box()
        assert box is not None
        left, top, width, height = (round(box[name]) for name in ("x", "y", "width", "height"))
        scale = min(width / expected.width, height / expected.height)
        size = round(expected.width * scale), round(expected.height * scale)
        corner = left + (width - size[0]) // 2, top + (height - size[1]) // 2
        part = viewer.picture()[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]].astype(float)
        seen["difference"] = round(float(np.abs(part - np.asarray(expected.resize(size), float)).mean()), 2)
        return seen["difference"] <= MAX_DIFFERENCE

    try:
        viewer.wait(drawn, "the key image")
    except NotShown as error:
        raise NotShown(f"{error}: {seen}") from error
    return seen
