"""Decode with GDCM in a subprocess, because damaged JPEG streams can crash it.

The subprocess is started with the first file that needs it, and restarted after a crash.  Files are sent as DICOM and
pixels returned as .npy; nothing is unpickled.
"""

from __future__ import annotations

import atexit
import io
import os
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# timeout for one file
SECONDS = 120.0
_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_DONE, _FAILED = b"+", b"-"


class GdcmFailed(Exception):
    """GDCM rejected a file, took too long, or crashed."""


def pixel_array_by_gdcm(ds: Dataset) -> NDArray[Any]:
    """Return the stored values of a dataset with compressed pixels; GdcmFailed if they cannot be decoded."""
    with _lock:
        return _child.decode(_only_pixels(ds))


def _only_pixels(ds: Dataset) -> bytes:
    """Return a file with only the attributes that decoding needs: no patient data is sent to another process."""
    from pydicom.dataset import Dataset as Empty
    from pydicom.dataset import FileMetaDataset

    small = Empty()
    small.file_meta = FileMetaDataset()
    small.file_meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
    for name in _TAGS:
        if name in ds:
            small[name] = ds[name]
    small.add_new("PixelData", "OB", ds.PixelData)
    small["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    small.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


class _Child:
    """The subprocess, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        # process id: a fork must not share the pipes
        self._owner = 0

    def decode(self, file: bytes) -> NDArray[Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            _send(process.stdin, _DONE, file)
            kind, answer = _receive(process.stdout)
        except OSError as error:
            # a broken pipe
            raise GdcmFailed("the GDCM process ended") from error
        finally:
            timer.cancel()
        if kind != _DONE:
            self.stop()
            raise GdcmFailed("GDCM rejected the pixels" if kind == _FAILED else "the GDCM process ended")
        array: NDArray[Any] = np.load(io.BytesIO(answer), allow_pickle=False)
        return array

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.stop()
            code = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as m; m.serve()"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._owner = os.getpid()
        return self._process

    def disconnect(self) -> None:
        """Let go of the pipes without closing them: half a file may be buffered, which must not follow the parent's."""
        if self._process is not None and self._process.stdin is not None and self._process.stdout is not None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for pipe in (self._process.stdin, self._process.stdout):
                os.dup2(nowhere, pipe.fileno(), inheritable=False)
            os.close(nowhere)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            # closes the pipes, and waits
            process.communicate()


_lock, _child = threading.Lock(), _Child()
_left_behind: list[_Child] = []
atexit.register(_child.stop)


def _renew() -> None:
    """In a forked process: the thread that held the lock is not there, and the subprocess belongs to the parent."""
    global _lock, _child
    _child.disconnect()
    # Kept: freeing it could wait for a thread that was writing to it.
    _left_behind.append(_child)
    _lock, _child = threading.Lock(), _Child()
    atexit.register(_child.stop)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _send(file: IO[bytes], kind: bytes, data: bytes) -> None:
    file.write(kind + len(data).to_bytes(8, "little"))
    file.write(data)
    file.flush()


def _receive(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Receive (kind, data); both are empty if the other process has ended."""
    head = file.read(9)
    if len(head) < 9:
        return b"", b""
    size = int.from_bytes(head[1:], "little")
    data = file.read(size)
    return (head[:1], data) if len(data) == size else (b"", b"")


def serve() -> None:
    """Run the subprocess: read a file, write its pixels, wait for the next file."""
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    answers = os.fdopen(os.dup(1), "wb")
    # GDCM may print, which must not get into the answers
    os.dup2(2, 1)
    while True:
        kind, data = _receive(sys.stdin.buffer)
        if kind != _DONE:
            return
        try:
            buffer = io.BytesIO()
            np.save(buffer, pixel_array(dcmread(io.BytesIO(data), force=True), decoding_plugin="gdcm"))
            _send(answers, _DONE, buffer.getvalue())
        except Exception:
            _send(answers, _FAILED, b"")
