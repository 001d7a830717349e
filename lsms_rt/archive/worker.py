"""What an actor does: it opens the engine once, and predicts one series after the other."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError
from lsms_rt.privacy import show_names
from lsms_rt.runs.jobs import Job
from lsms_rt.runs.lock import BusyError
from lsms_rt.runs.report import Report
from lsms_rt.runs.request import Request
from lsms_rt.runs.run import run
from lsms_rt.runs.slices import own_error
from lsms_rt.segmenter import Segmenter

from .state import MAX_TRIES, State

# A process whose driver died may hold a series' folder for so long.
BUSY_S = 60.0
CRASHED = "crash"
# Whose fault an error is.
KINDS: dict[str, type[LsmsError]] = {"input": InputError, "machine": MachineError, "engine": EngineError}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all actors are told.

    Attributes:
        engine: the engine directory.
        options: how it is opened, as keyword arguments of ``Segmenter``.
        texts: the sentences.
        request: what to write; its ``output`` is that of the archive.
        names: whether names are shown.
        time_limit: seconds after which a process that is still at a series is ended; None for never.
        version: of this package, which all machines must have.
    """

    engine: Path
    options: dict[str, Any]
    texts: tuple[str, ...]
    request: Request
    names: bool
    time_limit: int | None = None
    version: str = __version__


class SeriesWorker:
    """An actor of Ray Data: called with ``number``, ``path`` (bytes), ``series``, it returns how the series ended.

    Ray calls it again for a series in the midst of which the process died, for ever; what is recorded ends that.  It
    never raises.  Where an error is of all series, ``fatal`` is its kind, and ``error`` its message.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        assert settings.request.output is not None
        self._state = State(settings.request.output)
        self._segmenter: Segmenter | None = None
        show_names(settings.names)
        # Nobody reads an actor's warnings; the notes are in results.json.
        logging.getLogger("lsms_rt").setLevel(logging.ERROR)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number, state = row["number"], self._state
        reply = {"number": number, "kind": "", "fatal": "", "error": ""}
        if state.has_ended(number):
            # The process died with the reply.
            return reply
        try:
            if state.tries(number) >= MAX_TRIES:
                why = (
                    f"the process died, or reached --time-limit, {MAX_TRIES} times in the midst of it; not tried again"
                )
                state.end(number, _failed(CRASHED, why))
                return reply | {"kind": CRASHED}
            state.begin(number)
        except LsmsError as error:
            return reply | {"fatal": _kind(error), "error": str(error)}
        try:
            if self._settings.version != __version__:
                raise MachineError(
                    f"a machine has lsms-rt {__version__}, not {self._settings.version}; install the same"
                )
            if self._segmenter is None:
                self._segmenter = Segmenter(self._settings.engine, **self._settings.options)
            begin = time.perf_counter()
            with _limited(self._settings.time_limit):
                record = self._predicted(self._segmenter, number, os.fsdecode(row["path"]), row["series"])
            state.end(number, record | {"seconds": round(time.perf_counter() - begin, 3)})
        except (LsmsError, MemoryError, OSError) as error:
            # Of the engine, or of a full disk.
            state.withdraw(number)
            return reply | {"fatal": _kind(own_error(error)), "error": str(own_error(error))}
        return reply | {"kind": record["kind"]}

    def _predicted(self, segmenter: Segmenter, number: int, path: str, series: str | None) -> dict[str, Any]:
        """Predict a series; return the record of how it ended."""
        job = Job(path=Path(path), texts=self._settings.texts, series=series)
        request = replace(self._settings.request, output=self._state.place(number))
        until = time.monotonic() + BUSY_S
        while True:
            try:
                report = run(segmenter, [job], request)
            except BusyError:
                if time.monotonic() > until:
                    return _failed("machine", "another process holds the folder of the series; run the command again")
                time.sleep(1)
            except (LsmsError, MemoryError, OSError) as error:
                return _failed(_kind(own_error(error)), str(own_error(error)))
            except Exception as error:
                # Without its text, which may hold a patient's data.
                return _failed("unexpected", f"unexpected {type(error).__name__}")
            else:
                return _ended(report)


@contextmanager
def _limited(seconds: int | None) -> Iterator[None]:
    """End this process if the block takes longer: in the midst of a decoder nothing else helps."""
    if seconds is None:
        yield
        return
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _ended(report: Report) -> dict[str, Any]:
    if report.error is not None:
        return _failed("unexpected", f"unexpected {type(report.error).__name__}")
    return {"kind": "", "error": ""}


def _kind(error: LsmsError) -> str:
    return next((kind for kind, of_class in KINDS.items() if isinstance(error, of_class)), "unexpected")


def _failed(kind: str, why: str) -> dict[str, Any]:
    return {"kind": kind, "error": why}
