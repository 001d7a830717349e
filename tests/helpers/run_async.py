"""Run coroutines, and what runs them, in tests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Value = TypeVar("Value")


def in_a_thread(work: Callable[[], Value]) -> Value:
    """Call a function in a thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def run_async(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine in a thread: in the test's own, Playwright may have a loop that runs."""
    return in_a_thread(lambda: asyncio.run(work))


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a coroutine be a test."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        run_async(test(*arguments, **fixtures))

    return run
