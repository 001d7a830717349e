"""Draw docs/page.png anew: ``python tests/helpers/page_picture.py``, after ``make page`` and with Debian's Chromium.

The slices are those of a phantom case that trained no weights, chosen by number, not by result.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from serving_page import FLAGS, Visit, await_server

from lsms_rt.datasets.phantom.dataset import write_phantom
from lsms_rt.datasets.phantom.spec import PhantomSpec

PICTURE = Path(__file__).parents[2] / "docs" / "page.png"
SENTENCES = "the low-density lesion in the left lobe", "the lesion in the right lobe"
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        write_phantom(Path(name) / "phantom", PhantomSpec(cases=1, seed=1000))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "lsms_rt.cli", "serve", "demo", "--port", str(port)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            await_server(server, port)
            _draw(f"http://127.0.0.1:{port}", sorted((Path(name) / "phantom/images/case_000").iterdir()))
        finally:
            server.terminate()
            server.wait()


def _draw(address: str, slices: list[Path]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        visit = Visit(browser.new_page(viewport=SIZE, reduced_motion="reduce"), address).open()
        visit.send(*slices)
        visit.ask(*SENTENCES)
        visit.page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
