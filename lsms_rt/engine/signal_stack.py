"""The stack on which the system calls a thread's signal handlers, which OpenVINO replaces."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Give the thread back the stack for signals that it has now, at the end of the block.  Linux only.

    An ``openvino.Core`` gives the thread a stack of its own, and when it is freed, the stack of before.  Where two
    overlap, that may be the other's, which was freed; then the next signal that Python handles, e.g. Ctrl-C, ends the
    process by SIGSEGV (OpenVINO 2026.4).  A thread that has another stack by then is left as it is.
    """
    if sys.platform != "linux":
        yield
        return
    switch, before = ctypes.CDLL(None).sigaltstack, _Stack()
    known = switch(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            # The system refuses one that is too small for the processor's registers: then OpenVINO's is needed.
            switch(ctypes.byref(before), None)
