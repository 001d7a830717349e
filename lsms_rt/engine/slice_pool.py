"""A pool of CPU threads that computes one slice per thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from lsms_rt.errors import EngineInvalidError

from .process import Home

CLOSED = "this engine has been closed; open a new Segmenter"
# runs a session on one image (1, 1, S, S), with its number in its batch
Compute = Callable[[Any, np.ndarray, int], np.ndarray]


class SlicePool:
    """Computes slices in ``threads`` threads, with one session of one thread that is opened when it is needed."""

    def __init__(self, threads: int, open_session: Callable[[], Any]) -> None:
        self.threads, self._open, self._home = threads, open_session, Home(self)
        self._session: Any = None
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def run(self, batches: Iterable[np.ndarray], compute: Compute) -> Iterator[np.ndarray]:
        """Compute every image of every batch, and yield the results batch by batch, in order.

        Batches are requested until every thread has a slice queued after its current one, so that none is ever idle.
        """
        pending: deque[list[Future[np.ndarray]]] = deque()
        try:
            for images in batches:
                pending.append(self._submit(images, compute))
                while sum(map(len, pending)) - len(pending[0]) >= self.threads:
                    yield _gathered(pending.popleft())
            while pending:
                yield _gathered(pending.popleft())
        finally:
            # After an error, or if the caller stops early, slices are left.
            for future in (future for batch in pending for future in batch if self._home.here):
                future.cancel()

    def close(self) -> None:
        """Cancel queued slices and free the session."""
        with self._lock:
            self._closed = True
            if self._executor is not None:
                self._executor.shutdown(cancel_futures=True)
            self._session = self._executor = None

    def _submit(self, images: np.ndarray, compute: Compute) -> list[Future[np.ndarray]]:
        # In another process the lock may be held by a thread that is not there.
        self._home.check()
        # The lock is held to the last slice: ``close`` must not come in between.
        with self._lock:
            if self._closed:
                raise EngineInvalidError(CLOSED)
            if self._executor is None:
                self._session = self._open()
                self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="lsms-slice")
            submit, session = self._executor.submit, self._session
            return [submit(compute, session, image[None], n) for n, image in enumerate(images)]


def _gathered(batch: list[Future[np.ndarray]]) -> np.ndarray:
    try:
        return np.concatenate([future.result() for future in batch])
    except CancelledError as error:
        # by ``close``
        raise EngineInvalidError(CLOSED) from error
