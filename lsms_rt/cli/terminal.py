"""Messages and progress on stderr; results go to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")
PHASE_WIDTH = 60


def status(message: str) -> None:
    """Print a line to stderr."""
    print(message, file=sys.stderr, flush=True)


class UntilClosed:
    """A text stream that takes no more, silently, once the program that reads it has ended; ours goes on.

    All else is that of the stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        """Send the rest to nowhere, with what the stream still holds."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def is_interactive() -> bool:
    """Return whether stderr is a terminal, so that progress is worth printing."""
    return sys.stderr.isatty()


def progress_bar(items: Iterator[Item], total: int) -> Iterator[Item]:
    """Yield ``items`` under a progress bar, which appears on a terminal only and for more than one item."""
    from tqdm import tqdm

    yield from tqdm(items, total=total, unit="slice", leave=False, disable=None if total > 1 else True)


def show_step(phase: str, step: int, steps: int) -> None:
    """Print the progress of one phase, over the previous line."""
    end = "\n" if step == steps else ""
    print(f"\r{phase[:PHASE_WIDTH]:{PHASE_WIDTH}} {step}/{steps}", end=end, file=sys.stderr, flush=True)
