"""The page in Debian's Chromium, on a server of the bundled engine: one of each for this folder.

What is missing is told by skipped tests: Chromium (``install.sh``), Playwright, or the bundled viewer (``make page``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_page import FLAGS, WAIT_S, Visit, await_server

from lsms_rt.serving.routes_page import VIEWER

# Requests that may wait: tests fill the queue.
QUEUE = 2
SIZE = {"width": 1000, "height": 700}


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A browser; closed after this folder, since asyncio cannot be used in this process as long as Playwright runs."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed; run tests/serving/browser/install.sh as root")
    if not VIEWER.is_file():
        pytest.skip("the page's viewer is not bundled; run make page")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install -e '.[dev]'")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def address(chromium: Any) -> Iterator[str]:
    """The address of a server; started only where there is a browser for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lsms_rt.cli", "serve", "demo", "--port", str(port)]
    options = ["--queue", str(QUEUE), "--threads", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "LSMS_RT_API_KEY"}
    server = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        await_server(server, port)
        yield url
    finally:
        server.terminate()
        server.communicate(timeout=WAIT_S)


def _tab(chromium: Any, script: str | None = None) -> Iterator[Any]:
    with chromium.new_context(viewport=SIZE, reduced_motion="reduce") as context:
        if script is not None:
            context.add_init_script(script)
        yield context.new_page()


@pytest.fixture(scope="package")
def drawing_tab(chromium: Any) -> Iterator[Any]:
    """A tab; tests share it, since a new one takes a second of the processor's time."""
    yield from _tab(chromium)


@pytest.fixture(scope="package")
def plain_tab(chromium: Any) -> Iterator[Any]:
    """A tab without WebGL, which the processor draws slowly."""
    yield from _tab(chromium, "HTMLCanvasElement.prototype.getContext = () => null")


def _visit(page: Any, address: str) -> Iterator[Visit]:
    page.set_viewport_size(SIZE)
    page.emulate_media(color_scheme="light")
    visit = Visit(page, address).open()
    yield visit
    visit.leave()
    assert visit.foreign() == []
    assert visit.complaints == []


@pytest.fixture
def drawing(drawing_tab: Any, address: str) -> Iterator[Visit]:
    """The page, opened anew, with pictures.  At the end: nothing left this machine, and no script failed."""
    yield from _visit(drawing_tab, address)


@pytest.fixture
def visit(plain_tab: Any, address: str) -> Iterator[Visit]:
    """The same without pictures, for tests of all else."""
    yield from _visit(plain_tab, address)


@pytest.fixture(scope="session")
def series(phantom_case: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A phantom of six slices as DICOM files."""
    from lsms_rt.datasets.phantom.dicom import write_slice

    folder = tmp_path_factory.mktemp("series")
    for n in range(len(phantom_case.slices)):
        write_slice(folder / f"{n}.dcm", phantom_case, n, "Nobody")
    return sorted(folder.iterdir())
