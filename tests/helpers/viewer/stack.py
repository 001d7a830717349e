"""What deploy/compose.yaml starts, without containers: nginx before the server and Orthanc, and OHIF.

    python tests/helpers/viewer/stack.py -o DIR

A phantom series goes into the archive by DICOMweb and comes out of it, is segmented through nginx, and its Segmentation
goes back; OHIF must show it.  Orthanc, nginx and Chromium are Debian's, OHIF is npm's; nginx has deploy/nginx.conf but
for the addresses.  Ends with status 1 if something is not seen; DIR/stack_seg.png is a picture of what is.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The folder tests/helpers, so that it runs as a script, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orthanc import DIRECT, REQUEST_S, free_port, orthanc
from pydicom import dcmread

from lsms_rt.client import Client
from viewer import ohif
from viewer.checks import check_masks, check_panel
from viewer.page import browser
from viewer.run import SENTENCES, write_images
from viewer.site import DICOMWEB, site
from viewer.written import busiest_slice, run_manifest

CONFIG = Path(__file__).parents[3] / "deploy" / "nginx.conf"
DEBIAN = {"/usr/sbin/Orthanc": "orthanc", "/usr/sbin/nginx": "nginx-light", "/usr/bin/chromium": "chromium"}
DEBIAN["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"] = "orthanc-dicomweb"
START_S, STOP_S = 60, 30
BOUNDARY = "0123456789abcdef"


def main() -> int:
    parser = argparse.ArgumentParser(description="run what the compose file starts, without containers")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="replaced, but for OHIF itself")
    output: Path = parser.parse_args().output
    if missing := [package for path, package in DEBIAN.items() if not Path(path).exists()]:
        raise SystemExit(f"missing: {', '.join(missing)}; run: apt-get install {' '.join(missing)}")
    work = (output / "stack").resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    key = secrets.token_hex(32)
    (work / "key").write_text(key)
    pages = ohif.pages(output / "npm")
    write_images(work / "images")
    with orthanc(work / "orthanc") as archive, server(work) as port, nginx(work, port, archive.port) as front:
        url = f"http://127.0.0.1:{front}"
        for path in sorted((work / "images").iterdir()):
            store(url, path)
        study = str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)
        fetch(url, study, work / "fetched")
        predict(work, url)
        progress(work, url, key)
        seg = work / "results" / "segmentation.dcm"
        store(url, seg)
        labels = [str(segment.SegmentLabel) for segment in dcmread(seg).SegmentSequence]
        shown = busiest_slice(work / "fetched", work / "results", run_manifest(work / "results"))
        series = str(dcmread(seg).SeriesInstanceUID)
        with (
            site(pages, ohif.script(DICOMWEB), front) as address,
            browser(address) as chromium,
            chromium.viewer(study, series) as viewer,
        ):
            try:
                print(f"shown: {check_masks(viewer, labels, shown)}")
                check_panel(viewer, labels)
            finally:
                viewer.save(output / "stack_seg.png")
    return 0


@contextmanager
def process(command: list[str], log: Path, ready: str, key: str = "") -> Iterator[None]:
    """Run a program until the end; it has begun when it answers at an address."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with log.open("wb") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment)
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                request = urllib.request.Request(ready, headers={"Authorization": f"Bearer {key}"} if key else {})
                with DIRECT.open(request, timeout=REQUEST_S):
                    break
            except OSError as error:
                if running.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{command[0]} does not answer; see {log}") from error
                time.sleep(0.2)
        yield
    finally:
        running.terminate()
        running.wait(STOP_S)


@contextmanager
def server(work: Path) -> Iterator[int]:
    """Run the server as the compose file does, but for this machine alone."""
    port = free_port()
    command = [sys.executable, "-m", "lsms_rt.cli", "serve", "demo", "--port", str(port)]
    command += ["--api-key-file", str(work / "key")]
    key = (work / "key").read_text()
    with process(command, work / "server.log", f"http://127.0.0.1:{port}/readyz", key):
        yield port


@contextmanager
def nginx(work: Path, server: int, archive: int) -> Iterator[int]:
    """Run nginx with the site of deploy/nginx.conf."""
    port = free_port()
    text = CONFIG.read_text()
    for old, new in (("8080", f"127.0.0.1:{port}"), ("lsms-rt:8765", f"127.0.0.1:{server}"),
                     ("orthanc:8042", f"127.0.0.1:{archive}")):  # fmt: skip
        if old not in text:
            raise SystemExit(f"{CONFIG.name} has no {old}")
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"{kind}_temp_path {work}/nginx;" for kind in kinds)
    before = f"daemon off; pid {work}/nginx.pid; error_log stderr; events {{}}\n"
    (work / "nginx.conf").write_text(f"{before}http {{ access_log off; {own}\n{text}}}\n")
    command = ["/usr/sbin/nginx", "-e", "stderr", "-c", str(work / "nginx.conf")]
    with process(command, work / "nginx.log", f"http://127.0.0.1:{port}/healthz"):
        yield port


def store(url: str, path: Path) -> None:
    """Store a DICOM file (STOW-RS); an error of HTTP if it is not taken."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    with DIRECT.open(urllib.request.Request(f"{url}{DICOMWEB}/studies", body, headers), timeout=REQUEST_S):
        pass


def fetch(url: str, study: str, folder: Path) -> None:
    """Fetch the files of a study (WADO-RS), named as they were written."""
    folder.mkdir()
    headers = {"Accept": 'multipart/related; type="application/dicom"'}
    request = urllib.request.Request(f"{url}{DICOMWEB}/studies/{study}", headers=headers)
    with DIRECT.open(request, timeout=REQUEST_S) as answer:
        found = re.search(r'boundary="?([^";]+)', answer.headers["Content-Type"])
        assert found is not None
        parts = answer.read().split(b"--" + found[1].encode())
    for part in parts[1:-1]:
        path = folder / "part"
        path.write_bytes(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        path.rename(folder / f"{int(dcmread(path, stop_before_pixels=True).InstanceNumber):03d}.dcm")


def predict(work: Path, url: str) -> None:
    """Segment what was fetched, as a user does."""
    command = [sys.executable, "-m", "lsms_rt.cli", "predict", "demo", str(work / "fetched"), "--seg", "--names"]
    command += ["-o", str(work / "results"), "--server", url, "--api-key-file", str(work / "key")]
    for sentence in SENTENCES:
        command += ["--text", sentence]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def progress(work: Path, url: str, key: str) -> None:
    """Send the series to the server, and watch a job: nginx passes its lines on as they come."""
    seen: list[tuple[int, int]] = []
    with Client(url, api_key=key) as client:
        image = client.send(work / "fetched")
        client.ask(image, SENTENCES[:1], progress=lambda done, total: seen.append((done, total)))
        client.delete(image)
    print(f"progress: {seen}")


if __name__ == "__main__":
    sys.exit(main())
