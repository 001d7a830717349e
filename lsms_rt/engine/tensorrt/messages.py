"""Log messages of TensorRT: collected instead of printed, and turned into this package's errors.

Most of its functions return None or False on failure and log the reason.  Only the first logger that a process
registers is ever called, so there is one logger per library, which keeps the messages.
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
    brief,
)

# number of messages that are kept
MAX_MESSAGES = 1000
log = logging.getLogger("lsms_rt")


@dataclass(frozen=True)
class Message:
    """One line of a library's log; ``number`` counts all lines in this process."""

    number: int
    level: str
    text: str


class Messages:
    """The last messages of one library; safe to use from several threads."""

    def __init__(self) -> None:
        self._others: deque[Message] = deque(maxlen=MAX_MESSAGES)
        # Kept separately, so that info messages cannot evict errors.
        self._errors: deque[Message] = deque(maxlen=MAX_MESSAGES)
        # an exception that a callback from the library could not raise
        self.interrupt: BaseException | None = None
        self._lock = threading.Lock()
        self._listeners: list[list[str]] = []
        self._count = 0

    def add(self, level: str, text: str) -> None:
        """Add a message."""
        with self._lock:
            self._count += 1
            message = Message(self._count, level, text)
            (self._errors if level in ("INTERNAL_ERROR", "ERROR") else self._others).append(message)
            for texts in self._listeners:
                texts.append(text)
        log.debug("%s: %s", level, text)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Yield a list to which all messages of the meantime are appended, however many."""
        texts: list[str] = []
        with self._lock:
            self._listeners.append(texts)
        try:
            yield texts
        finally:
            with self._lock:
                self._listeners.remove(texts)

    def mark(self) -> int:
        """Return the current position in the log, for :meth:`errors`."""
        return self._count

    def errors(self, mark: int) -> list[str]:
        """Return the errors after ``mark``."""
        with self._lock:
            return [message.text for message in self._errors if message.number > mark]


@functools.cache
def logger_of(library: Any) -> Any:
    """Return the only logger for ``library`` (a module); its ``messages`` are a :class:`Messages`."""

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.messages = Messages()

        def log(self, severity: Any, text: str) -> None:
            try:
                self.messages.add(severity.name, text)
            except BaseException as error:
                # Ctrl-C arrives here, and the library would swallow it.
                self.messages.interrupt = error

    return Logger()


# Message pattern -> error and fix.  The texts of RTX 1.7 were provoked; those of TensorRT are from its documentation
# and public reports about 10.x, so the patterns are loose.
_PATTERNS: tuple[tuple[str, type[LsmsError], str], ...] = (
    (r"cudaError 35|driver version is insufficient|old.*driver", DriverTooOldError,
     "the NVIDIA driver is missing or older than this TensorRT needs; see lsms-rt doctor"),
    (r"cudaError 100|no CUDA-capable device", GpuNotFoundError, "this machine has no NVIDIA GPU"),
    (r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|cudaError 2:|insufficient.*memory", OutOfDeviceMemoryError,
     "the GPU has too little free memory; rebuild with a smaller --max-batch, or close other programs"),
    (r"created with .*version .*current runtime|expecting library version|[Vv]ersion tag|not compatible with this "
     r"version|version mismatch", TensorRtVersionError,
     "rebuild the engine with this machine's TensorRT: lsms-rt build-engine"),
    (r"compute capabilit|compute \d+\.\d+ got compute|different (GPU|device)|incompatible device|unsupported.*SM",
     WrongGpuError, "rebuild the engine on or for this GPU: lsms-rt build-engine"),
    (r"[Ss]erializ|magic tag|does not conform|corrupt", EngineInvalidError, "rebuild the engine: lsms-rt build-engine"),
)  # fmt: skip


def explain(what: str, logged: list[str]) -> LsmsError:
    """Return the error to raise for a failed call of the library.

    Args:
        what: the failed call, e.g. "image.plan did not run".
        logged: the errors that the library logged about it.

    Returns:
        An error that quotes the log: of a matching class with a fix, or an EngineInvalidError.
    """
    text = " | ".join(_shorten(line) for line in logged) or "the library logged no reason"
    # The last message is about the failure; earlier ones may be about attempts that the library gave up.
    for line in reversed(logged):
        for pattern, error, fix in _PATTERNS:
            if re.search(pattern, line):
                return error(f"{what}: {text}; {fix}")
    return EngineInvalidError(f"{what}: {text}")


def _shorten(line: str, limit: int = 300) -> str:
    # without positions in the library's source code
    return brief(re.sub(r"\s*(In \w+ )?at /_src/\S+", "", line), limit - 3)
