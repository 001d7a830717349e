"""The lock of a GPU, and the work that is left to its holder."""

from __future__ import annotations

import threading

import pytest

from lsms_rt.engine.tensorrt.lock import GpuLock


def test_work_is_done_at_once_or_by_who_holds_the_lock() -> None:
    lock, done = GpuLock(), list[tuple[str, threading.Thread]]()
    lock.later(lambda: done.append(("free", threading.current_thread())))
    holder = threading.current_thread()
    with lock:
        other = threading.Thread(target=lambda: lock.later(lambda: done.append(("held", threading.current_thread()))))
        other.start()
        other.join(5)
        assert not other.is_alive() and len(done) == 1
        # Its holder need not wait.
        with lock:
            lock.later(lambda: done.append(("inside", threading.current_thread())))
    assert [what for what, _ in done] == ["free", "held", "inside"]
    assert {thread for _, thread in done} == {holder}


def test_an_interrupt_leaves_the_lock_free() -> None:
    lock = GpuLock()

    def interrupt() -> None:
        raise KeyboardInterrupt

    lock._later.append(interrupt)
    with pytest.raises(KeyboardInterrupt), lock:
        pytest.fail("entered")
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(lock._lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert taken == [True]


def test_no_work_is_forgotten_by_many_threads() -> None:
    lock, done = GpuLock(), list[int]()

    def busy() -> None:
        for _ in range(200):
            lock.later(lambda: done.append(1))
            with lock:
                pass

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == 800 and not lock._later
