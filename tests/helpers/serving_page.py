"""The server's page as a user sees and uses it, for tests in a browser."""

from __future__ import annotations

import io
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WAIT_S = 60.0
# Of Chromium.  Without a GPU WebGL is drawn by the processor, which must be allowed.
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def await_server(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server listens; AssertionError, with what it said, if it does not."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    server.kill()
    raise AssertionError(f"the server did not start: {server.communicate()[1].decode()}")


class Visit:
    """The page in a tab, with what a user sees and does.

    Args:
        page: Playwright's page, a tab.
        address: the server's.

    Attributes:
        requests: addresses that it asked for.
        complaints: errors of scripts, and of the policy that forbids foreign content.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._listeners = {
            "request": lambda request: self.requests.append(request.url),
            "pageerror": lambda error: self.complaints.append(str(error)),
            "console": self._noted,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)
        page.set_default_timeout(1000 * WAIT_S)

    def leave(self) -> None:
        """Undo what was done to the tab; the next test has it."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.page.unroute_all()

    def _noted(self, message: Any) -> None:
        # A status that a test provokes is told by the browser, too.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self) -> Visit:
        """Load the page, and wait until it can be used."""
        self.page.goto(self.address)
        self.page.wait_for_selector("#examples button:nth-of-type(3)")
        return self

    def send(self, *paths: Path) -> None:
        """Choose files, and wait until the server has read them."""
        self.page.set_input_files("#files", [str(path) for path in paths])
        self.page.wait_for_selector("#about", state="visible")

    def take_example(self, number: int) -> None:
        self.page.click(f"#examples button:nth-of-type({number})")
        self.page.wait_for_selector("#about", state="visible")

    def type(self, *sentences: str) -> None:
        """Type sentences, one a row."""
        for n, sentence in enumerate(sentences, 1):
            if self.page.locator("#rows > li").count() < n:
                self.page.click("#add")
            self.page.fill(f"#rows > li:nth-child({n}) input[type=text]", sentence)

    def ask(self, *sentences: str) -> None:
        """Type sentences, press Enter, and wait for what comes of it."""
        self.type(*sentences)
        self.press_enter()
        self.page.wait_for_selector("#work", state="hidden")

    def press_enter(self) -> None:
        self.page.press("#rows > li:last-child input[type=text]", "Enter")
        # What is not understood, or misses an image, is told without work.
        self.page.wait_for_selector("#work:not([hidden]), .notice, #results:not([hidden])")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def alternative(self) -> str:
        """What a screen reader says of the pictures."""
        return str(self.page.get_attribute("#canvas", "aria-label"))

    def drawn(self) -> list[list[int]]:
        """Return how many pixels of each slice are drawn for each sentence."""
        return [mask["pixels"] for mask in self.page.evaluate("lsms.maskPixels()") if mask["visible"]]

    def colored(self, color: tuple[int, int, int]) -> int:
        """Return how many pixels of the pictures, as the browser shows them, have about a color."""
        shown = np.asarray(Image.open(io.BytesIO(self.page.locator("#canvas").screenshot())).convert("RGB"), int)
        return int((np.abs(shown - color).max(axis=2) < 24).sum())

    def save(self, label: str, path: Path) -> Path:
        """Press a button for a download."""
        with self.page.expect_download() as expected:
            self.page.get_by_role("button", name=label, exact=True).click()
        expected.value.save_as(path)
        return path

    def foreign(self) -> list[str]:
        """Return what it asked of other machines."""
        own = (f"{self.address}/", "blob:", "data:")
        return [url for url in self.requests if not url.startswith(own)]
