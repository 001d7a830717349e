"""Decode compressed pixels in a process of its own: damaged streams crash some decoders, and others never return.

The process is started with the first file that needs it.  It forks for each file, so that no file meets memory that
another one damaged; where there is no fork, it decodes by itself, and is started again after a crash.  Files are sent
as DICOM and pixels returned as .npy; nothing is unpickled.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading.budget import Budget

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# of computing for one file, and a second more for each slice of 512x512 pixels; the slowest decoder needs a tenth
CPU_SECONDS = 2
PIXELS_PER_SECOND = 2**18
# of waiting for an answer, and for the process to start
WAIT_SECONDS, START_SECONDS = 600.0, 60.0
_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
# before a file: the decoder's name and the seconds that it may take; before pixels: the seconds that it took
_REQUEST, _COST = struct.Struct("<16sI"), struct.Struct("<d")
_READY, _DONE, _FAILED, _SLOW = b"!", b"+", b"-", b"~"


class DecodingFailed(Exception):
    """The decoder rejected a file, or crashed."""


def decode(ds: Dataset, plugin: str, budget: Budget, source: str) -> NDArray[Any]:
    """Return the stored values of a dataset with compressed pixels; other threads that decode wait meanwhile.

    Args:
        ds: the dataset.
        plugin: pydicom's name of the decoder.
        budget: of the input; it limits the time.
        source: the dataset's name in messages.

    Raises:
        DecodingFailed: they cannot be decoded.
        InputError: decoding takes too long.
        MachineError: the process cannot be started.
    """
    pixels = int(ds.Rows) * int(ds.Columns) * int(ds.get("NumberOfFrames") or 1)
    seconds = CPU_SECONDS + pixels // PIXELS_PER_SECOND
    file = _REQUEST.pack(plugin.encode(), seconds) + _only_pixels(ds)
    with _lock:
        answer = _child.ask(file)
    budget.seconds += answer.seconds
    if answer.kind == _SLOW:
        raise InputError(f"{source}: its pixels take more than {seconds} s to decode; export it uncompressed")
    if answer.kind != _DONE:
        raise DecodingFailed("rejected" if answer.kind == _FAILED else "the process ended")
    stream = io.BytesIO(answer.data)
    stream.seek(_COST.size)
    array: NDArray[Any] = np.load(stream, allow_pickle=False)
    return array


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


class _Answer(NamedTuple):
    kind: bytes = b""
    seconds: float = 0.0
    data: bytes = b""


class _Child:
    """The subprocess, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        # process id: a fork must not share the pipes
        self._owner = 0

    def ask(self, file: bytes) -> _Answer:
        """Return the answer for a file, an empty one if the process crashed over it."""
        for attempt in range(2):
            try:
                answer = self._ask(file)
            except BrokenPipeError:
                # The process ended before it had the whole file, which therefore is not the reason.
                continue
            # A decoder that crashes ends its fork only, so the process itself was ended by something else.
            if answer.kind or attempt or not hasattr(os, "fork"):
                return answer
        raise MachineError("the process that decodes ends at once; free memory, or export the images uncompressed")

    def _ask(self, file: bytes) -> _Answer:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        deadline, kind, data = _Deadline(process, WAIT_SECONDS), b"", b""
        try:
            with deadline:
                _send(process.stdin, _DONE, file)
                kind, data = _receive(process.stdout)
        except BrokenPipeError:
            if not deadline.passed():
                raise
        finally:
            # After an interrupt, too: the next file must not get this one's pixels.
            if deadline.passed() or not kind:
                self.stop()
        if not kind:
            return _Answer(_SLOW, WAIT_SECONDS) if deadline.passed() else _Answer()
        return _Answer(kind, _COST.unpack_from(data)[0], data)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.stop()
            self._process, self._owner = _started(), os.getpid()
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
            _end(process)


class _Deadline:
    """Ends a process after some seconds, but never after the ``with`` block: it then works on something else."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._passed = threading.Event()
        self._timer = threading.Timer(seconds, self._end, (process,))

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._passed.set()
        _kill(process)

    def passed(self) -> bool:
        return self._passed.is_set()

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self._timer.join()


def _started() -> subprocess.Popen[bytes]:
    """Start the process and wait until it is ready; MachineError if it does not start, which no file causes."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as m; m.serve()"
    try:
        process = subprocess.Popen(
            [sys.executable or "python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise MachineError(f"the process that decodes cannot be started ({error.strerror}); {_FIX}") from error
    assert process.stdout is not None
    with _Deadline(process, START_SECONDS):
        kind, _ = _receive(process.stdout)
    if kind != _READY:
        _end(process)
        raise MachineError(f"the process that decodes does not start; {_FIX}")
    return process


_FIX = "check that sys.executable is Python, or export the images uncompressed"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its forks."""
    if hasattr(os, "killpg"):
        # It leads its group, unless it is gone.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
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
    if len(head) < 9 or head[:1] not in (_READY, _DONE, _FAILED, _SLOW):
        return b"", b""
    size = int.from_bytes(head[1:], "little")
    data = file.read(size)
    return (head[:1], data) if len(data) == size else (b"", b"")


def serve() -> None:
    """Run the subprocess: read a file, write its pixels, wait for the next file."""
    # before the forks, so that they need not
    for name in ("pydicom.pixels.decoders", "pydicom.pixels.utils", "gdcm", "openjpeg", "jpeg_ls", "PIL.Image"):
        with suppress(ImportError):
            importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "wb")
    # a decoder may print, which must not get into the answers
    os.dup2(2, 1)
    _send(answers, _READY, b"")
    while True:
        kind, data = _receive(sys.stdin.buffer)
        if kind != _DONE:
            return
        if hasattr(os, "fork"):
            _forked(answers, data)
        else:
            _send(answers, *_decoded(data))


def _forked(answers: IO[bytes], data: bytes) -> None:
    """Decode a file in a fork, which the system ends when it has used up its time."""
    import resource

    child = os.fork()
    if child == 0:
        seconds = _REQUEST.unpack_from(data)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        _send(answers, *_decoded(data))
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    if status:
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        _send(answers, _SLOW if late else _FAILED, _COST.pack(used.ru_utime + used.ru_stime))


def _decoded(data: bytes) -> tuple[bytes, bytes]:
    """Return the kind of the answer, and its time with the pixels."""
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    begin, buffer = time.process_time(), io.BytesIO()
    plugin, _ = _REQUEST.unpack_from(data)
    buffer.write(bytes(_COST.size))
    try:
        ds = dcmread(io.BytesIO(data[_REQUEST.size :]), force=True)
        np.save(buffer, pixel_array(ds, decoding_plugin=plugin.rstrip(b"\0").decode()))
        kind = _DONE
    except Exception:
        buffer.truncate(_COST.size)
        kind = _FAILED
    buffer.seek(0)
    buffer.write(_COST.pack(time.process_time() - begin))
    return kind, buffer.getvalue()
