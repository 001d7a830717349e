"""A call in a process of its own: what it breaks, a CUDA context above all, ends with it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lsms_rt.errors import EngineError, brief

ANSWER, ERROR = "answer", "error"
# Seconds after its answer in which the process may remove what it no longer needs.
GRACE = 30


def call(function: Callable[..., Any], *arguments: Any, **listeners: Callable[..., Any] | None) -> Any:
    """Return ``function(*arguments, **listeners)``, called in a new process.

    Args:
        function: a function of a module, which the process imports.
        arguments: what it needs; they are pickled, and so is the answer.
        listeners: called in this process, while the function runs; it waits for none of them and sees no result.  It
            does not get those that are None.

    Raises:
        EngineError: the function raised an error, whose type is named, or the process ended without an answer.
    """
    given = {name: listener for name, listener in listeners.items() if listener is not None}
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    try:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise EngineError(f"a process could not be started ({error.strerror})") from error
    with process:
        try:
            # It may have ended before it read them, which the answer, or its lack, says.
            with suppress(BrokenPipeError), process.stdin as pipe:  # type: ignore[union-attr]
                pickle.dump((function, arguments, [*given]), pipe)
            while (message := _received(process))[0] in given:
                given[message[0]](*message[1])
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            process.kill()
    name, (value,) = message
    if name == ERROR:
        raise EngineError(value)
    return value


def _received(process: subprocess.Popen[bytes]) -> tuple[str, tuple[Any, ...]]:
    """Return the next message of a process; an error if it ended."""
    try:
        name, values = pickle.load(process.stdout)  # type: ignore[arg-type]
    except (EOFError, pickle.UnpicklingError):
        code = process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return ERROR, (f"its process was ended {how}",)
    return name, values


def main() -> None:
    """Be the process: read the call, and send what its listeners are told and the answer."""
    # Ctrl-C is for the other process, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel, lock = os.fdopen(os.dup(1), "wb"), threading.Lock()
    # What libraries print is no message.
    os.dup2(2, 1)

    def send(name: str, *values: Any) -> None:
        message = pickle.dumps((name, values))
        with lock:
            channel.write(message)
            channel.flush()

    try:
        function, arguments, listeners = pickle.load(sys.stdin.buffer)
        send(ANSWER, function(*arguments, **{name: partial(send, name) for name in listeners}))
    # Whatever it is, the other process goes on.
    except Exception as error:
        send(ERROR, f"{type(error).__name__}: {brief(str(error), 300)}")
