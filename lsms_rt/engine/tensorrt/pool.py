"""A pool of lanes: it lends each to one user at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lsms_rt.errors import EngineError, EngineInvalidError, OutOfDeviceMemoryError

from .lane import Lane

# idle lanes that are kept
MAX_IDLE = 3
# lanes per plan; further requests block
MAX_LANES = 8
# seconds to wait for a lane; a thread may hold all lanes itself
TIMEOUT = 60


class Lanes:
    """A pool of lanes: they are created on demand, and up to ``MAX_IDLE`` of them are kept for their next use.

    Args:
        make: creates a lane for a batch size.
        max_lanes: maximum number of lanes.
    """

    def __init__(self, make: Callable[[int], Lane], max_lanes: int = MAX_LANES) -> None:
        self._make: Callable[[int], Lane] | None = make
        self._idle: list[Lane] = []
        self._in_use, self._max_lanes = 0, max_lanes
        self._changed = threading.Condition()

    def acquire(self, batch: int, wait: bool = True) -> Lane | None:
        """Return a lane for ``batch``, for exclusive use.

        Args:
            batch: the batch size.
            wait: block while all lanes are in use; otherwise None is returned then.

        Raises:
            EngineError: all lanes have been in use for ``TIMEOUT`` seconds.
            EngineInvalidError: the engine has been closed.
            OutOfDeviceMemoryError: there is too little memory for another lane.
        """
        with self._changed:
            while True:
                if self._make is None:
                    raise EngineInvalidError("this engine has been closed; open a new Segmenter")
                for lane in reversed(self._idle):
                    if lane.batch == batch:
                        self._idle.remove(lane)
                        self._in_use += 1
                        return lane
                if self._idle or self._in_use < self._max_lanes:
                    break
                if not wait:
                    return None
                if not self._changed.wait(TIMEOUT):
                    raise EngineError(
                        f"all {self._max_lanes} lanes of this engine have been in use for {TIMEOUT} s; exhaust or "
                        "close the iterators of predict_series"
                    )
            full = self._in_use + len(self._idle) >= self._max_lanes
            oldest, make = (self._idle.pop(0) if full else None), self._make
            self._in_use += 1
        # Outside of the lock, since it may take seconds.
        try:
            if oldest is not None:
                oldest.free()
            return self._made(make, batch)
        except BaseException:
            self._returned()
            raise

    def _made(self, make: Callable[[int], Lane], batch: int) -> Lane:
        try:
            return make(batch)
        except OutOfDeviceMemoryError:
            with self._changed:
                idle, self._idle = self._idle, []
            if not idle:
                raise
        # Memory is needed now more than idle lanes later.
        for lane in idle:
            lane.free()
        return make(batch)

    def release(self, lane: Lane) -> None:
        """Return a lane to the pool; if too many are idle, the oldest is freed, which an answer does not wait for."""
        with self._changed:
            surplus = [lane]
            if self._make is not None:
                self._idle.append(lane)
                surplus = [self._idle.pop(0)] if len(self._idle) > MAX_IDLE else []
        self._returned()
        for old in surplus:
            old.free_later()

    def discard(self, lane: Lane) -> None:
        """Free a lane whose state is unknown, after an error or an incomplete series."""
        self._returned()
        lane.free_later()

    def close(self) -> None:
        """Free the idle lanes; those in use are freed when they are released."""
        with self._changed:
            idle, self._idle, self._make = self._idle, [], None
            self._changed.notify_all()
        for lane in idle:
            lane.free()

    def _returned(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
