"""What TensorRT says: collected instead of printed, and turned into this package's errors.

Most of its functions answer None or False on failure and tell the reason to a logger; and the first logger that a
process registers is the only one that is ever called.  So there is one logger a library, and it remembers.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lsms_rt.errors import (
    DriverTooOldError,
    EngineInvalidError,
    GpuNotFoundError,
    LsmsError,
    OutOfDeviceMemoryError,
    TensorRtVersionError,
    WrongGpuError,
)

KEPT = 1000  # messages
log = logging.getLogger("lsms_rt")


@dataclass(frozen=True)
class Message:
    """One line of a library's log; ``number`` counts all that this process has seen."""

    number: int
    level: str
    text: str


class Messages:
    """The last messages of one library; safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: deque[Message] = deque(maxlen=KEPT)
        self._errors: deque[Message] = deque(maxlen=KEPT)  # apart: chatter must not push them out
        self.interrupt: BaseException | None = None  # what a callback from the library could not raise
        self._lock = threading.Lock()
        self._listeners: list[list[str]] = []
        self._count = 0

    def add(self, level: str, text: str) -> None:
        with self._lock:
            self._count += 1
            message = Message(self._count, level, text)
            (self._errors if level in ("INTERNAL_ERROR", "ERROR") else self._kept).append(message)
            for texts in self._listeners:
                texts.append(text)
        log.debug("%s: %s", level, text)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """All texts that come meanwhile, however many, in a list that grows."""
        texts: list[str] = []
        with self._lock:
            self._listeners.append(texts)
        try:
            yield texts
        finally:
            with self._lock:
                self._listeners.remove(texts)

    def mark(self) -> int:
        """A point in time, for :meth:`errors`."""
        return self._count

    def errors(self, mark: int) -> list[str]:
        """The errors after ``mark``."""
        with self._lock:
            return [message.text for message in self._errors if message.number > mark]


@functools.cache
def logger_of(library: Any) -> Any:
    """The one logger for ``library`` (a module); its ``messages`` holds what was said."""

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.messages = Messages()

        def log(self, severity: Any, text: str) -> None:
            try:
                self.messages.add(severity.name, text)
            except BaseException as error:  # Ctrl-C arrives here; the library would swallow it
                self.messages.interrupt = error

    return Logger()


# What the libraries say, and what it is.  Texts of RTX 1.7 were provoked; those of TensorRT are from its documentation
# and public reports of 10.x, so the patterns are loose.
_PATTERNS: tuple[tuple[str, type[LsmsError], str], ...] = (
    (r"cudaError 35|driver version is insufficient|old.*driver", DriverTooOldError,
     "the NVIDIA driver is missing or older than this TensorRT needs; see lsms-rt doctor"),
    (r"cudaError 100|no CUDA-capable device", GpuNotFoundError, "this machine has no NVIDIA GPU"),
    (r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|cudaError 2:|insufficient.*memory", OutOfDeviceMemoryError,
     "the GPU has too little free memory; take a smaller --max-batch, or free some"),
    (r"created with .*version .*current runtime|expecting library version|[Vv]ersion tag|not compatible with this "
     r"version|version mismatch", TensorRtVersionError,
     "build it again with this machine's TensorRT: lsms-rt build-engine"),
    (r"compute capabilit|compute \d+\.\d+ got compute|different (GPU|device)|incompatible device|unsupported.*SM",
     WrongGpuError, "build it again on or for this GPU: lsms-rt build-engine"),
    (r"[Ss]erializ|magic tag|does not conform|corrupt", EngineInvalidError, "build it again: lsms-rt build-engine"),
)  # fmt: skip


def explain(what: str, said: list[str]) -> LsmsError:
    """The error for a call that failed: ``what`` failed, and what the library ``said`` of it.

    An unknown reason is an :class:`EngineInvalidError` that quotes it: never None, never silence.
    """
    text = " | ".join(_shorten(line) for line in said) or "it gave no reason"
    for line in reversed(said):  # the last is what failed; those before may be what the library tried and gave up
        for pattern, error, fix in _PATTERNS:
            if re.search(pattern, line):
                return error(f"{what}: {text}; {fix}")
    return EngineInvalidError(f"{what}: {text}")


def _shorten(line: str, most: int = 300) -> str:
    line = re.sub(r"\s*(In \w+ )?at /_src/\S+", "", line)  # places in the library's source help nobody here
    return line if len(line) <= most else line[: most - 3] + "..."
