"""Finds series: by Orthanc's changes where there are such, else, and after every outage, by QIDO."""

from __future__ import annotations

import logging
import time

from .dicomweb import DicomWeb
from .ledger import QUEUED, SKIPPED, Ledger
from .orthanc import Orthanc
from .retry import ArchiveError
from .rules import Rules

_log = logging.getLogger("lsms_rt")
# seconds after which an archive that tells its changes is asked by QIDO, too
SWEEP_S = 3600.0


class Feed:
    """Notes series of the archive in the ledger.

    Args:
        rules: what to do.
        archive: the archive.
        orthanc: its changes; None if it tells none.
        ledger: where to note them.
    """

    def __init__(self, rules: Rules, archive: DicomWeb, orthanc: Orthanc | None, ledger: Ledger) -> None:
        self._rules, self._archive, self._orthanc, self._ledger = rules, archive, orthanc, ledger
        self._swept = float("-inf")
        self._position: int | None = None

    def look(self) -> int:
        """Note what is new; return the number of series that there is something to do for.

        Raises:
            ArchiveError: the archive did not tell.
        """
        try:
            return self._look()
        except ArchiveError:
            # Orthanc tells of no series whose last image came just before it was killed.
            self._swept = float("-inf")
            raise

    def _look(self) -> int:
        cursor = self._ledger.cursor()
        if cursor is None:
            return self._begin()
        new = 0
        if self._orthanc is not None:
            new = self._changes(self._orthanc, cursor)
            if time.monotonic() - self._swept < SWEEP_S:
                return new
        return new + self._sweep(QUEUED)

    def _begin(self) -> int:
        """Look for the first time: what is there already is to be done, or not."""
        all_of_them = self._rules.start == "all"
        position = 0 if self._orthanc is None or all_of_them else self._orthanc.last()
        new = self._sweep(QUEUED if all_of_them else SKIPPED)
        self._ledger.advance(position)
        return new

    def _changes(self, orthanc: Orthanc, cursor: int) -> int:
        if self._position is None:
            self._position = cursor
        if orthanc.last() < self._position:
            _log.warning("the archive was emptied: all of its series are looked at again")
            self._ledger.forget_changes()
            self._position = 0
        new = 0
        for position, changes in orthanc.changes(self._position):
            for change in changes:
                due = time.time() + (0 if change.stable else self._rules.quiet_s)
                new += self._ledger.see(change.series, due=due, change=change.number)
            self._position = position
        self._ledger.advance(self._position)
        return new

    def _sweep(self, state: str) -> int:
        """Look at all series of the last days."""
        new, reason = 0, "it was there before the first start" if state == SKIPPED else ""
        for series in self._archive.series(self._rules.days):
            due = time.time() + self._rules.quiet_s
            new += self._ledger.see(series, due=due, state=state, reason=reason)
        self._swept = time.monotonic()
        return new
