"""Engines and forks: threads, pools and GPU contexts stay behind in the process that made them."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref

from lsms_rt.errors import EngineInvalidError


class Home:
    """The process in which ``owner`` was made, and in which alone it works."""

    def __init__(self, owner: object) -> None:
        self._process = os.getpid()
        _OWNERS.add(owner)
        _watch_forks()

    @property
    def here(self) -> bool:
        """Whether this is that process, not one that was forked off it."""
        return self._process == os.getpid()

    def check(self) -> None:
        """Raise EngineInvalidError in any other process: a call would wait for threads that do not exist there."""
        if not self.here:
            raise EngineInvalidError(
                "this engine was opened before this process was forked, and its threads stayed behind; open a new "
                "Segmenter in each process, after the fork"
            )


_OWNERS: weakref.WeakSet[object] = weakref.WeakSet()


def _after_fork() -> None:
    """Free nothing that a fork copied, now or at the end: ONNX Runtime would wait for threads that are not there."""
    for owner in list(_OWNERS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    libc = ctypes.CDLL(None)
    # Called after Python's own end, before the destructors of libraries; only glibc has it.
    if hasattr(libc, "on_exit"):
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


@functools.cache
def _watch_forks() -> None:
    """Once there is something to keep: other programs' forks are theirs."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
