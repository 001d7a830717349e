"""The lock of a GPU, which nobody waits for to free something: who holds it does that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class GpuLock:
    """A reentrant lock; a context manager.  While it is held, the device must be current in the thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._later: deque[Callable[[], None]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._work()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._try()

    def later(self, work: Callable[[], None]) -> None:
        """Call ``work``, which must not raise, under the lock: now if it is free, or else when its holder is done."""
        self._later.append(work)
        self._try()

    def _try(self) -> None:
        """Do the work that is left, unless another thread holds the lock: it looks again after its release."""
        while self._later and self._lock.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._lock.release()

    def _work(self) -> None:
        while self._later:
            self._later.popleft()()
