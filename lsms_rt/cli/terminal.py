"""Messages and progress on stderr; results go to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
PHASE_WIDTH = 60


def status(message: str) -> None:
    """Print a line to stderr."""
    print(message, file=sys.stderr, flush=True)


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
