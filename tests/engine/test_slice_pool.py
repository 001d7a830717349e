"""Slices on threads of their own: order, errors, the end."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lsms_rt.engine.slice_pool import SlicePool
from lsms_rt.errors import EngineInvalidError


def batches(*sizes: int) -> Iterator[np.ndarray]:
    numbers = iter(range(1000))
    for size in sizes:
        yield np.array([[next(numbers)] for _ in range(size)])


def slow(session: str, image: np.ndarray, n: int) -> np.ndarray:
    time.sleep(random.Random(int(image[0, 0])).uniform(0, 0.01))
    assert session == "session"
    return image[0]


def test_answers_come_in_order_whoever_is_done_first() -> None:
    opened: list[str] = []
    pool = SlicePool(3, lambda: opened.append("one") or "session")
    # Nothing is opened before it is needed.
    assert not opened
    for _ in range(2):
        found = [answer.tolist() for answer in pool.run(batches(4, 1, 3), slow)]
        assert found == [[0, 1, 2, 3], [4], [5, 6, 7]]
    assert opened == ["one"]
    pool.close()


def test_no_thread_waits_between_two_batches() -> None:
    """Batches of one on two threads: two slices are under way at a time."""
    together = threading.Barrier(2, timeout=10)

    def meet(_: str, image: np.ndarray, n: int) -> np.ndarray:
        together.wait()
        return image[0]

    pool = SlicePool(2, lambda: "session")
    assert len(list(pool.run(batches(1, 1, 1, 1), meet))) == 4
    pool.close()


def test_an_error_reaches_the_caller_and_the_pool_goes_on() -> None:
    def fail(_: str, image: np.ndarray, n: int) -> np.ndarray:
        if image[0, 0] == 2:
            raise EngineInvalidError("slice 2")
        return image[0]

    pool = SlicePool(2, lambda: "session")
    with pytest.raises(EngineInvalidError, match="slice 2"):
        list(pool.run(batches(2, 2, 2), fail))
    assert len(list(pool.run(batches(2), slow))) == 1
    pool.close()


def test_a_closed_pool_stays_closed() -> None:
    pool = SlicePool(2, lambda: "session")
    answers = pool.run(batches(2, 2, 2, 2), slow)
    next(answers)
    pool.close()
    with pytest.raises(EngineInvalidError, match="closed"):
        list(answers)
    pool.close()


def test_closing_during_the_last_batch_is_said_too() -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait(_: str, image: np.ndarray, n: int) -> np.ndarray:
        started.set()
        go_on.wait(10)
        return image[0]

    pool = SlicePool(1, lambda: "session")
    answers = pool.run(batches(3), wait)
    closer = threading.Thread(target=lambda: (started.wait(10), pool.close()))
    closer.start()
    # ``close`` waits for the slice that is under way.
    threading.Timer(0.2, go_on.set).start()
    with pytest.raises(EngineInvalidError, match="closed"):
        next(answers)
    closer.join()


def test_closing_during_the_handover_raises_no_other_error() -> None:
    """Whenever it comes: threads change places as often as they can, two hundred times over."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            started = threading.Event()
            pool = SlicePool(2, lambda: "session")

            def answer(_: str, image: np.ndarray, n: int, started: threading.Event = started) -> np.ndarray:
                started.set()
                return image[0]

            def close(pool: SlicePool = pool, started: threading.Event = started) -> None:
                started.wait(10)
                pool.close()

            closer = threading.Thread(target=close)
            closer.start()
            # No other error may be raised.
            with contextlib.suppress(EngineInvalidError):
                list(pool.run((np.zeros((4, 1)) for _ in range(50)), answer))
            closer.join()
    finally:
        sys.setswitchinterval(before)
