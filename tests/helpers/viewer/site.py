"""OHIF's pages and the archive's DICOMweb at one address, so that a browser asks no other origin."""

from __future__ import annotations

import mimetypes
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from orthanc import DIRECT, REQUEST_S

DICOMWEB = "/dicom-web"
# Orthanc writes addresses into its answers by the host that it was asked for.
_PASSED_ON = ("Accept", "Content-Type")


@contextmanager
def site(pages: Path, config: str, archive_port: int) -> Iterator[str]:
    """Serve a folder of pages, ``config`` as its app-config.js, and an archive; yield the address.

    Only GET, and only from this machine.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(DICOMWEB):
                self._archive()
            elif path == "/app-config.js":
                self._answer(200, "text/javascript", config.encode())
            else:
                self._page(path)

        def _page(self, path: str) -> None:
            file = (pages / path.lstrip("/")).resolve()
            if not (file.is_relative_to(pages.resolve()) and file.is_file()):
                # A path of the application, which its first page reads.
                file = pages / "index.html"
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, kind, file.read_bytes())

        def _archive(self) -> None:
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            headers["Host"] = self.headers["Host"]
            request = urllib.request.Request(f"http://127.0.0.1:{archive_port}{self.path}", headers=headers)
            try:
                with DIRECT.open(request, timeout=REQUEST_S) as answer:
                    self._answer(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.headers["Content-Type"], error.read())

        def _answer(self, status: int, kind: str | None, body: bytes) -> None:
            self.send_response(status)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            # Both allow SharedArrayBuffer, which OHIF uses.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
