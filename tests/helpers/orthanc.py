"""Orthanc, a DICOM archive, on this machine alone and for as long as a test lasts."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S, REQUEST_S = 30, 60
# A proxy of the environment is not for this machine's own servers.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Archive:
    """An Orthanc that is running.

    Attributes:
        port: where it speaks HTTP, at 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, path: str, body: bytes | None = None) -> Any:
        """Return the JSON that Orthanc answers: to a GET, or to a POST of ``body``."""
        return json.loads(self.content(path, body))

    def content(self, path: str, body: bytes | None = None) -> bytes:
        """Return what Orthanc answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body)
        with DIRECT.open(request, timeout=REQUEST_S) as answer:
            return bytes(answer.read())

    def store(self, path: Path) -> None:
        """Store a DICOM file; an error if Orthanc does not accept it, or has one with the same UID."""
        status = self.request("/instances", path.read_bytes())["Status"]
        if status != "Success":
            raise SystemExit(f"Orthanc did not store {path.name}: {status}")

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Orthanc and of its DICOMweb plugin."""
        plugin = self.request("/plugins/dicom-web")["Version"]
        return {"Orthanc": self.request("/system")["Version"], "Orthanc DICOMweb": plugin}


def configuration(folder: Path, port: int) -> dict[str, Any]:
    """Return Orthanc's configuration: only HTTP, only from this machine, DICOMweb, files in ``folder``."""
    return {
        "Name": "lsms-rt test",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        # A series without new images for a second is complete.
        "StableAge": 1,
        # OHIF asks for attributes that only the whole metadata has.
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }


class Server:
    """Orthanc, which can be killed and started again on its port and its files.

    Args:
        folder: of its files, log and configuration.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Archive:
        """Start it, and return when it answers."""
        settings, log = self._folder / "orthanc.json", self._folder / "orthanc.log"
        settings.write_text(json.dumps(configuration(self._folder / "storage", self.port), indent=2))
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                ["Orthanc", str(settings)], stdout=said, stderr=said, stdin=subprocess.DEVNULL
            )
        archive = Archive(self.port)
        try:
            _wait_for(archive, self._process, log)
        except BaseException:
            self.kill()
            raise
        return archive

    def kill(self) -> None:
        """End it as a crash does.  An orderly end takes 2 s, and nobody reads its files afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def orthanc(folder: Path) -> Iterator[Archive]:
    """Start an empty archive in a new folder; end it at the end."""
    folder.mkdir()
    server = Server(folder)
    try:
        yield server.start()
    finally:
        server.kill()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(archive: Archive, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the archive answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"Orthanc ended with status {process.returncode}; see {log}")
        try:
            archive.request("/system")
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    raise SystemExit(f"Orthanc did not answer within {START_S} s; see {log}")
