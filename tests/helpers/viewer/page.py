"""OHIF in a headless Chromium: open a series, see what is drawn and written, save pictures."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
# Software rendering, and nothing that asks for other machines.
FLAGS = (
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
)  # fmt: skip
SIZE = {"width": 1440, "height": 900}
WAIT_S, STEP_S = 60, 0.5

# where positions in the patient are on the page
TO_PAGE = """points => {
    const {viewportGridService, cornerstoneViewportService} = window.services;
    const viewport = cornerstoneViewportService.getCornerstoneViewport(viewportGridService.getActiveViewportId());
    const box = viewport.element.getBoundingClientRect();
    return points.map(point => viewport.worldToCanvas(point)).map(([x, y]) => [box.left + x, box.top + y]);
}"""
# the labels of all segments that the viewer holds; none while it starts
SEGMENTS = """() => (window.services?.segmentationService.getSegmentations() ?? [])
    .flatMap(one => Object.values(one.segments).filter(Boolean).map(segment => segment.label))"""


class NotShown(Exception):
    """What should be seen in the viewer is not."""


class Viewer:
    """One page of OHIF, with one series of a study."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def text(self) -> str:
        """Return all text on the page."""
        return self.page.inner_text("body")

    def wait(self, seen: Callable[[], object], what: str) -> None:
        """Wait until ``seen`` returns something true; NotShown with ``what`` if it never does."""
        end = time.monotonic() + WAIT_S
        while not seen():
            if time.monotonic() > end:
                raise NotShown(f"{what}: not within {WAIT_S} s")
            time.sleep(STEP_S)

    def segments(self) -> list[str]:
        """Return the labels of the segments that are loaded."""
        return list(self.page.evaluate(SEGMENTS))

    def scroll_to(self, instance: int) -> None:
        """Scroll to the slice with this InstanceNumber, as a user does."""
        here = f"I:{instance} ("
        self.page.locator('[data-cy="viewport-pane"]').first.click(position={"x": 300, "y": 20})
        for key in ("ArrowUp", "ArrowDown"):
            for _ in range(200):
                before = self.text()
                if here in before:
                    return
                self.page.keyboard.press(key)
                time.sleep(STEP_S)
                if self.text() == before:
                    break
        raise NotShown(f"the slice with InstanceNumber {instance}")

    def picture(self) -> np.ndarray:
        """Return the page as it is drawn: uint8 (H, W, 3)."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))

    def canvas(self) -> np.ndarray:
        """Return the viewport as it is drawn: uint8 (H, W, 3); empty while there is none."""
        canvas = self.page.locator('[data-cy="viewport-pane"] canvas').first
        box = canvas.bounding_box() if canvas.count() else None
        if box is None:
            return np.zeros((0, 0, 3), np.uint8)
        left, top, width, height = (round(box[name]) for name in ("x", "y", "width", "height"))
        return self.picture()[top : top + height, left : left + width]

    def colors(self, points: np.ndarray) -> np.ndarray:
        """Return what is drawn at positions (N, 3) in the patient: float (N, 3), red, green and blue, 0 to 255."""
        places = np.rint(np.array(self.page.evaluate(TO_PAGE, points.tolist()))).astype(int)
        return self.picture()[places[:, 1], places[:, 0]].astype(float)

    def save(self, path: Path) -> None:
        """Save a picture of the page, with colors in steps of 4 so that it stays small."""
        Image.fromarray(self.picture() & 0xFC).save(path, optimize=True)


class Browser:
    """A Chromium that opens series in OHIF."""

    def __init__(self, chromium: Any, address: str) -> None:
        self._chromium, self._address = chromium, address

    @property
    def version(self) -> str:
        return str(self._chromium.version)

    @contextmanager
    def viewer(self, study: str, series: str) -> Iterator[Viewer]:
        """Open a series of a study in a new page."""
        with self._chromium.new_page(viewport=SIZE) as page:
            page.goto(f"{self._address}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
            yield Viewer(page)


@contextmanager
def browser(address: str) -> Iterator[Browser]:
    """Start Chromium for the viewer at ``address``."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Browser(chromium, address)
        finally:
            chromium.close()
