"""A worker process: opens the engines, and does one task after the other."""

from __future__ import annotations

import contextlib
import logging
import signal
import traceback
from collections.abc import Callable
from typing import Any

from lsms_rt.errors import LsmsError

from .settings import Model
from .tasks import WORDS, Cancelled, Done, Failed, Opened, Progress, Reply, Task, failed
from .wire import Pipe

_log = logging.getLogger("lsms_rt")
# What the parent sends in the middle of a task.
CANCEL = "cancel"


class CancelledError(BaseException):
    """The task in progress was cancelled.  Not an Exception: one bad slice must not stop a run, but this must."""


def main(pipe: Pipe, models: tuple[Model, ...], device: str | None, threads: int | None, runtime: Any) -> None:
    """Open the engines, then do what comes over the pipe, until it closes."""
    # Ctrl-C and a service's stop are for the parent, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from .work import Worker

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = Worker(models, device, threads, runtime)
            pipe.send(Opened(worker.opened()))
        except Exception as error:
            pipe.send(logged_failure(error))
            return
        while True:
            task: Task | str = pipe.recv()
            # A cancellation that came too late.
            if not isinstance(task, str):
                pipe.send(_reply(worker.do, task, pipe))


def _reply(do: Callable[[Task, Callable[[int, int], None]], Done], task: Task, pipe: Pipe) -> Reply:
    def progress(done: int, total: int) -> None:
        while pipe.poll():
            if pipe.recv() == CANCEL:
                raise CancelledError
        pipe.send(Progress(done, total))

    try:
        return do(task, progress)
    except CancelledError:
        return Cancelled()
    except Exception as error:
        return logged_failure(error)


def logged_failure(error: Exception, words: str = WORDS) -> Failed:
    """Return an error as a reply, and log where an unexpected one was; arguments as for ``failed``."""
    reply = failed(error, words)
    if isinstance(error, LsmsError) and reply.status >= 500:
        _log.error("%s", reply.message)
    elif reply.status >= 500:
        # Without its text, which may hold a patient's data.
        where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        _log.error("%s\n%s", reply.message, where.rstrip())
    return reply
