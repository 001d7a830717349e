"""Engines and forks: threads, pools and GPU contexts stay behind in the process that made them."""

from __future__ import annotations

import ctypes
import os
import weakref

from lsms_rt.errors import EngineInvalidError


class Home:
    """The process in which ``owner`` was made, and in which alone it works."""

    def __init__(self, owner: object) -> None:
        self._process = os.getpid()
        _OWNERS.add(owner)

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


def _keep_owners() -> None:
    """Never free what a fork copied: a library would wait for its threads to end, which are not there."""
    for owner in list(_OWNERS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_owners)
