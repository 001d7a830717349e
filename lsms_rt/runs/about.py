"""What logged messages are about: the input of a run that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_about = ""


@contextmanager
def about(prefix: str) -> Iterator[None]:
    """Begin every logged message with ``prefix``, which says what it is about."""
    global _about
    before, _about = _about, prefix
    try:
        yield
    finally:
        _about = before


def prefixed(message: str) -> str:
    """Return a message with what it is :func:`about`."""
    return _about + message
