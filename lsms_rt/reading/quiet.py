"""Warnings and log messages of libraries, silenced: they contain values of files."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial


@contextmanager
def quiet_pydicom(*loggers_too: str) -> Iterator[None]:
    """Silence all warnings and pydicom's log messages, and those of the loggers ``loggers_too``.

    Most Pythons have these settings once for the whole process.  Threads that read at the same time share them: the
    first changes them, the last restores them, and none waits.  Meanwhile warnings of the caller's other threads are
    silent too, and a warning filter that one of them sets is lost.
    """
    with ExitStack() as stack:
        if getattr(sys.flags, "context_aware_warnings", False):
            stack.enter_context(_silent_warnings())
        else:
            stack.enter_context(_WARNINGS)
        for name in ("pydicom", *loggers_too):
            stack.enter_context(_logger(name))
        yield


class _Shared:
    """A change of a setting of the process: the first thread that needs it makes it, the last one undoes it."""

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change, self._lock = change, threading.Lock()
        self._users, self._made = 0, ExitStack()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Start anew: of the threads that were counted, or held the lock, a fork has only the one that forked."""
        self._lock, self._users = threading.Lock(), 0
        self._made.close()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._made.enter_context(self._change())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            # 0 in a process that was forked meanwhile
            self._users = max(0, self._users - 1)
            if self._users == 0:
                self._made.close()


@contextmanager
def _silent_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent_logger(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


_WARNINGS = _Shared(_silent_warnings)


@cache
def _logger(name: str) -> _Shared:
    return _Shared(partial(_silent_logger, name))
