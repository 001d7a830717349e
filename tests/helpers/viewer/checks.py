"""What must be seen of each object, and what was seen."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread

from .page import NotShown, Viewer
from .written import Measured, SliceShown, measured

# Difference of the largest and the smallest of red, green and blue: of a gray pixel, of a pixel under a mask.
MAX_GRAY, MIN_COLOR = 12, 20
# Distance of two colors.
MIN_DISTANCE = 25
# Share of sampled points that must be as expected, and the mean difference of an image of a key image, of 255.
MIN_SHARE, MAX_DIFFERENCE = 0.98, 12

# Of a line in a color; pixels of all contours of a slice.
MIN_LINE_COLOR, MIN_LINE = 100, 100
# Volume and diameter.
MIN_MEASURES = 2


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


def check_contours(viewer: Viewer, labels: list[str], shown: SliceShown) -> dict[str, Any]:
    """Check that all structures are loaded, and that lines in colors are drawn."""
    viewer.wait(lambda: sorted(viewer.segments()) == sorted(labels), f"{len(labels)} structures with their names")
    viewer.scroll_to(shown.instance)
    seen = {"structures": viewer.segments(), "slice": shown.instance, "pixels_in_color": 0}

    def drawn() -> bool:
        seen["pixels_in_color"] = int((np.ptp(viewer.canvas(), axis=2) >= MIN_LINE_COLOR).sum())
        return seen["pixels_in_color"] >= MIN_LINE

    viewer.wait(drawn, "contours in colors")
    return seen


def check_report(viewer: Viewer, report: Path) -> dict[str, Any]:
    """Check that the page shows the measures of every group of a report; at least volume and diameter."""
    groups = measured(report)
    if not groups:
        raise NotShown("a measurement group in the report")
    seen = []
    for number, group in enumerate(groups, start=1):
        if len(group.images) != 1:
            what = f"group {number} of the report: coordinates of {len(group.images)} images"
            raise NotShown(f"{what}, all of which OHIF draws on one")
        if number > 1:
            viewer.page.locator('[data-cy="viewport-action-arrows-right"]').click()
        seen.append(_group(viewer, group, f"measures of group {number} of the report"))
    for _ in groups[1:]:
        viewer.page.locator('[data-cy="viewport-action-arrows-left"]').click()
    _group(viewer, groups[0], "measures of group 1 of the report, again")
    return {"shown": seen}


def _group(viewer: Viewer, group: Measured, what: str) -> dict[str, bool]:
    """Wait until the page shows a group of a report; return which of its measures."""

    def shown() -> dict[str, bool]:
        text = viewer.text()
        return {name: f"{name}: {value}" in text for name, value in group.values.items()}

    viewer.wait(lambda: sum(shown().values()) >= MIN_MEASURES, what)
    return shown()


def check_key_image(viewer: Viewer, image: Path) -> dict[str, Any]:
    """Check that the page shows the pixels of a key image."""
    expected = Image.fromarray(dcmread(image).pixel_array)
    seen = {"difference": 255.0}

    def drawn() -> bool:
        canvas = viewer.canvas()
        # As large as the viewport allows, in its middle.
        scale = min(canvas.shape[0] / expected.height, canvas.shape[1] / expected.width)
        height, width = round(expected.height * scale), round(expected.width * scale)
        top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
        part = canvas[top : top + height, left : left + width].astype(float)
        if part.size:
            seen["difference"] = round(float(np.abs(part - np.asarray(expected.resize((width, height)))).mean()), 2)
        return seen["difference"] <= MAX_DIFFERENCE

    try:
        viewer.wait(drawn, "the key image")
    except NotShown as error:
        raise NotShown(f"{error}: {seen}") from error
    return seen
