"""Failures of the machine while a file is read: they are not called damage of the file."""

from __future__ import annotations

import errno
import importlib

from lsms_rt.errors import MachineError

_FIXES = {
    errno.EMFILE: "close files, or raise the limit (ulimit -n)",
    errno.ENFILE: "close files, or raise the limit of the system",
    errno.ENOMEM: "free memory",
}


def raise_if_machine(error: BaseException, doing: str) -> None:
    """Raise MachineError if ``error`` says nothing about the file: memory, open files, a library that is broken.

    Args:
        error: what was caught.
        doing: the beginning of the message: which file.
    """
    if isinstance(error, OSError) and error.errno in _FIXES:
        raise MachineError(f"{doing}: cannot be opened ({error.strerror}); {_FIXES[error.errno]}") from error
    if isinstance(error, ImportError):
        kind = type(error).__name__
        raise MachineError(f"{doing}: a library that reads it cannot be imported ({kind}); install it again") from error


def import_pydicom() -> None:
    """Import pydicom with its decoders, which import other libraries; MachineError if one of them is broken."""
    try:
        for name in ("pydicom", "pydicom.filereader", "pydicom.pixels.decoders"):
            importlib.import_module(name)
    except Exception as error:
        # A file or folder here that has a library's name raises AttributeError in it, for example.
        kind = type(error).__name__
        fix = "install it again, and look for files here that are named as a library"
        raise MachineError(f"pydicom or one of its decoders cannot be imported ({kind}); {fix}") from error
