"""One series after the other, until the worker is stopped; what fails is tried again, or given up with its reason."""

from __future__ import annotations

import errno
import logging
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError, MissingDependencyError
from lsms_rt.privacy import NAMES_HINT
from lsms_rt.serving.private_folder import sweep

from .audit import Audit
from .database import DAMAGED
from .feed import Feed
from .ledger import DEAD, QUEUED, Ledger, Row
from .metrics import Metrics
from .retry import (
    LONGEST_WAIT_S,
    MAX_UNEXPECTED,
    ArchiveAwayError,
    ArchiveDeniedError,
    ArchiveError,
    ArchiveFailedError,
    ArchiveRefusedError,
    delay,
)
from .rules import Rules
from .work import PREFIX, DiskFullError, Outcome, Work

_log = logging.getLogger("lsms_rt")
NAP_S = 0.2


class Loop:
    """A worker.

    Args:
        rules: what to do.
        feed: finds series.
        ledger: remembers them.
        work: does one.
        audit: is told.
        metrics: count.
    """

    def __init__(self, rules: Rules, feed: Feed, ledger: Ledger, work: Work, audit: Audit, metrics: Metrics) -> None:
        self._rules, self._feed, self._ledger, self._work = rules, feed, ledger, work
        self._audit, self._metrics = audit, metrics
        self._stopping = False
        # looks that failed, and series that waited for the archive or the disk, one after the other
        self._failed, self._waited = 0, 0
        self._next_look = 0.0

    def stop(self) -> None:
        """End after the series that is being done."""
        self._stopping = True

    def run(self, *, once: bool = False) -> None:
        """Work until :meth:`stop`; with ``once``, until no series is queued.

        Raises:
            ArchiveRefusedError: the archive does not answer this worker, or not at this URL.
        """
        while not self._stopping:
            try:
                if time.monotonic() >= self._next_look:
                    self._look()
                row = None if self._failed and once else self._ledger.take()
                if row is not None:
                    self._one(row)
                elif not self._failed and once and self._ledger.waiting() is None:
                    return
                if row is None:
                    self._sleep(min(1.0, self._rules.poll_s))
                elif self._waited:
                    self._sleep(delay(self._waited, LONGEST_WAIT_S))
            except (sqlite3.OperationalError, OSError) as error:
                # The state folder's disk is full; what was taken is put back by the next take.
                if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._waited += 1
                _log.warning("the state folder cannot be written (%s); it is waited for", type(error).__name__)
                self._sleep(delay(self._waited, LONGEST_WAIT_S))
            except sqlite3.DatabaseError as error:
                raise InputError(DAMAGED) from error

    def _look(self) -> None:
        # Images that a killed worker fetched must not lie there until somebody has something to do.
        sweep(PREFIX)
        try:
            self._feed.look()
        except (ArchiveAwayError, ArchiveFailedError) as error:
            self._failed += 1
            if self._failed == 1:
                _log.warning("%s", error)
            self._audit.write("look failed", reason=str(error), attempt=self._failed)
            self._next_look = time.monotonic() + delay(self._failed, LONGEST_WAIT_S)
        else:
            self._failed = 0
            self._next_look = time.monotonic() + self._rules.poll_s
        self._metrics.looked(failed=bool(self._failed))

    def _one(self, row: Row) -> None:
        """Do a series, and note how it ended."""
        self._audit.write("taken", row=row.number, attempt=row.attempts + 1)
        begin, waited = time.monotonic(), self._waited + 1
        self._waited = 0
        try:
            self._end(row, self._work.do(row), time.monotonic() - begin)
        except (ArchiveAwayError, DiskFullError) as error:
            self._waited = waited
            self._later(row, error, row.attempts, delay(1))
        except ArchiveDeniedError as error:
            self._later(row, error, row.attempts, 0)
            raise
        except ArchiveFailedError as error:
            self._again(row, error, self._rules.max_attempts)
        except (ArchiveRefusedError, InputError, EngineError, MissingDependencyError) as error:
            self._dead(row, _reason(error))
        except (ArchiveError, MachineError, MemoryError) as error:
            self._again(row, error, MAX_UNEXPECTED)
        except sqlite3.DatabaseError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._waited = waited
                self._later(row, DiskFullError("the disk is full; make room"), row.attempts, delay(1))
            else:
                self._again(row, error, MAX_UNEXPECTED)
        except Exception as error:
            self._again(row, error, MAX_UNEXPECTED)
        except BaseException:
            # Ctrl-C for the second time.
            self._ledger.put_back(row, due=time.time(), attempts=row.attempts, reason="the worker was interrupted")
            raise

    def _end(self, row: Row, outcome: Outcome, seconds: float) -> None:
        facts = outcome.facts | ({} if not outcome.reason else {"reason": outcome.reason})
        self._audit.write(outcome.event, row=row.number, seconds=round(seconds, 3), **facts)
        if outcome.state == QUEUED:
            attempts, due = row.attempts + 1, time.time() + self._rules.quiet_s
            if attempts >= self._rules.max_attempts:
                # What is told of it is not what is there, e.g. where an archive counts images that it does not list.
                self._dead(row, f"{outcome.reason}, or the archive miscounts its images (after {attempts} attempts)")
            else:
                self._ledger.put_back(row, due=due, attempts=attempts, reason=outcome.reason, count=outcome.count)
            return
        self._ledger.finish(row, outcome.state, outcome.reason, key=outcome.key, count=outcome.count)
        self._metrics.count(outcome.event)

    def _again(self, row: Row, error: Exception, limit: int) -> None:
        """Put a series back, unless it has failed too often."""
        attempts = row.attempts + 1
        if attempts >= limit:
            self._dead(row, f"{_reason(error)} (after {attempts} attempts)")
        else:
            self._later(row, error, attempts, delay(attempts))

    def _later(self, row: Row, error: Exception, attempts: int, wait_s: float) -> None:
        self._audit.write("put back", row=row.number, reason=_reason(error), wait_s=round(wait_s, 1))
        self._ledger.put_back(row, due=time.time() + wait_s, attempts=attempts, reason=_reason(error))
        self._metrics.count("put_back")

    def _dead(self, row: Row, reason: str) -> None:
        self._audit.write("dead", row=row.number, reason=reason)
        _log.warning("row %d is given up: %s", row.number, reason)
        self._ledger.finish(row, DEAD, reason)
        self._metrics.count("dead")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(NAP_S, left))


def _reason(error: Exception) -> str:
    """Return an error's text if it is ours; of another one only what it is, since its text may hold identifiers."""
    ours = isinstance(error, LsmsError)
    return str(error).replace(f" ({NAMES_HINT})", "") if ours else f"unexpected {type(error).__name__}"


@contextmanager
def stopped_by_signals(loop: Loop) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the worker after its series; the second one ends it at once."""

    def stop(number: int, frame: object) -> None:
        loop.stop()
        for again in before:
            signal.signal(again, _interrupt)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
