"""What one input may cost in all: each of 20,000 files may be within its limits, and their sum must be, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsms_rt.errors import InputError

from .limits import pixel_limit

# inflated from one archive, all members and passes together
MAX_INFLATED_BYTES = 4 * 2**30
# of the header values that stay in memory with the slices; real ones have about a kilobyte a slice
MAX_HEADER_BYTES = 64 * 2**20
# of computing: parsing and decoding
MAX_SECONDS = 300
# a second more for each two slices of 512x512 pixels; the slowest decoder needs a fifth of that
PIXELS_PER_SECOND = 2**19


class OverBudgetError(InputError):
    """An input as a whole, not one of its files, is over a limit."""


class Budget:
    """What was spent on one input so far: all its files, members and passes together.

    Args:
        name: the input's name in messages.
        packed: its bytes on disk, if they are known before its files are opened.
    """

    def __init__(self, name: str = "the input", packed: int = 0) -> None:
        self.name, self.packed = name, packed
        self.inflated = self.headers = self.pixels = 0
        self.seconds = 0.0
        self._counted: set[Path] = set()

    def add_file(self, path: Path, size: int) -> None:
        """Count the bytes of a file once, however often it is opened."""
        if path not in self._counted:
            self._counted.add(path)
            self.packed += size

    def add_inflated(self, size: int) -> None:
        """Count bytes that are inflated from an archive."""
        self.inflated += size
        if self.inflated > MAX_INFLATED_BYTES:
            limit = f"{MAX_INFLATED_BYTES / 2**30:g} GiB"
            raise OverBudgetError(f"{self.name}: inflates to more than the limit of {limit}; archive one series only")

    def add_header(self, size: int) -> None:
        """Count the bytes of header values that are kept."""
        self.headers += size
        if self.headers > MAX_HEADER_BYTES:
            limit = f"{MAX_HEADER_BYTES / 2**20:.0f} MiB"
            raise OverBudgetError(f"{self.name}: its headers hold more than the limit of {limit}; give one series only")

    def add_pixels(self, count: int) -> None:
        """Count pixels, before they are decoded."""
        self.pixels += count
        limit = pixel_limit(self.packed)
        if self.pixels > limit:
            what = f"{self.pixels} pixels in {self.packed} bytes, over the limit of {limit}"
            raise OverBudgetError(f"{self.name}: {what}, which CT images never are; export it again, uncompressed")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time that this thread computes; waiting for a disk or for other threads is free."""
        self.seconds_left()
        begin = time.thread_time()
        try:
            yield
        finally:
            self.seconds += time.thread_time() - begin

    def seconds_left(self) -> float:
        """Return the time that is left; OverBudgetError if there is none."""
        limit = MAX_SECONDS + self.pixels / PIXELS_PER_SECOND
        if self.seconds >= limit:
            what = f"reading took more than the limit of {limit:.0f} s ({MAX_SECONDS} s, and 1 s for 2**19 pixels)"
            raise OverBudgetError(f"{self.name}: {what}; give one series only, or export it uncompressed")
        return limit - self.seconds
