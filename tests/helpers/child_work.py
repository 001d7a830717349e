"""What is called in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def returns(draft: Any, *, say: Callable[[str], None], progress: Any = None) -> tuple[Any, bool]:
    say("half")
    print("printed", flush=True)
    say("done")
    return draft, progress is None


def refuses() -> None:
    raise TypeError("no such plugin")


def crashes() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def ends() -> None:
    os._exit(3)


def answers_what_cannot_be_sent() -> Any:
    return lambda: None


def waits(path: Path, *, say: Callable[[int], None]) -> None:
    say(os.getpid())
    time.sleep(20)
    path.touch()
