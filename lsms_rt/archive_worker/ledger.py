"""What is known of each series, in a file that several workers of one machine share (SQLite).

A series is *queued* until a worker takes it (*running*), and ends as *done*, *skipped* or *dead*.  It holds UIDs, so it
is this user's alone; all else that is told of a series names its row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lsms_rt.errors import InputError

from .database import NAME, opened
from .dicomweb import Series
from .owners import Owner, is_alive, sweep_locks
from .retry import LONGEST_DUE_S, MAX_ENDED, delay

QUEUED, RUNNING, DONE, SKIPPED, DEAD = STATES = ("queued", "running", "done", "skipped", "dead")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A series, as it was when a worker took it.

    Attributes:
        number: of the row; what is told of the series names it by this.
        series: the series, with the number of its images at the last look.
        attempts: failed attempts so far.
        key: of the last result; "" if there is none.
    """

    number: int
    series: Series
    attempts: int
    key: str


@dataclass(frozen=True, kw_only=True)
class Object:
    """An object that was, or is about to be, stored for a series.

    Attributes:
        uid: its SOPInstanceUID.
        kind: its SOPClassUID.
        series: its SeriesInstanceUID.
        key: of the result that it is part of.
    """

    uid: str = field(repr=False)
    kind: str
    series: str = field(repr=False)
    key: str


class Ledger:
    """The ledger.

    Args:
        folder: where it is; created with access for its owner only.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._base = folder, opened(folder / NAME)
        self._owner: Owner | None = None
        # of the rules by which this worker works
        self._rules = ""

    def begin(self, archive: str, rules: str) -> None:
        """Begin to work: for one archive, and by the same rules as all workers that live.

        Args:
            archive: its URL.
            rules: digest of the rules.

        Raises:
            InputError: the ledger is of another archive, or a worker with other rules uses it.
        """
        self._rules = rules
        with self._change() as base:
            base.execute("INSERT OR IGNORE INTO feed VALUES ('archive', ?)", (archive,))
            (known,) = base.execute("SELECT value FROM feed WHERE name = 'archive'").fetchone()
        if known != archive:
            # Its series and changes mean nothing here: they would end as "not in the archive any more".
            raise InputError("the state folder is of another archive; name a folder for this one with state")
        owner = self._registered()
        with self._change() as base:
            others = base.execute(
                "SELECT number FROM workers WHERE rules != ? AND number != ?", (rules, owner.number)
            ).fetchall()
            alive = any(is_alive(self._folder, number) for (number,) in others)
        if alive:
            raise InputError(
                "a worker with other rules uses this state folder, and would skip series of these; stop it, or name "
                "another folder with state"
            )

    def close(self) -> None:
        if self._owner is not None:
            self._owner.close()
        self._base.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Change all or nothing, alone."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield self._base
        except BaseException:
            self._base.rollback()
            raise
        self._base.commit()

    def see(self, found: Series, *, due: float, change: int = 0, state: str = QUEUED, reason: str = "") -> bool:
        """Note a series of the archive; return whether there is something new to do for it.

        Args:
            found: the series as it is now.
            due: when it may be taken.
            change: the number of the change that told of it; 0 if none did.
            state: of a series that is not known yet.
            reason: of that state.
        """
        values = (found.study, found.uid, found.count, state, change, due, reason, time.time())
        with self._change() as base:
            # The same series may be in two studies: a copy, or where it was moved.
            known = base.execute(
                "SELECT count, change, state FROM series WHERE study = ? AND uid = ?", (found.study, found.uid)
            ).fetchone()
            if known is None:
                base.execute(
                    "INSERT INTO series (study, uid, count, state, change, due, reason, since) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values,
                )  # fmt: skip
                return state == QUEUED
            count, before, state = known
            grown, told = count != found.count, change > before
            # A change without a new number of images may be an exchange; of a dead series it is not worth a new try.
            if not grown and (not told or state == DEAD):
                return False
            base.execute(
                "UPDATE series SET count = :count, change = MAX(change, :change), "
                "again = (state = 'running'), due = CASE WHEN state = 'running' THEN due ELSE :due END, "
                "attempts = CASE WHEN state IN ('queued', 'running') THEN attempts ELSE 0 END, "
                "ended = CASE WHEN state IN ('queued', 'running') THEN ended ELSE 0 END, "
                "state = CASE WHEN state = 'running' THEN state ELSE 'queued' END "
                "WHERE study = :study AND uid = :uid",
                {"count": found.count, "change": change, "due": due, "study": found.study, "uid": found.uid},
            )
            return state not in (QUEUED, RUNNING)

    def cursor(self) -> int | None:
        """Return the number of the change after which to read on; None at the very first start."""
        row = self._base.execute("SELECT value FROM feed WHERE name = 'cursor'").fetchone()
        return None if row is None else int(row[0])

    def advance(self, position: int) -> None:
        """Move the cursor to ``position``, but not past a change whose series is not finished yet."""
        with self._change() as base:
            (first,) = base.execute(
                "SELECT MIN(change) FROM series WHERE state IN ('queued', 'running') AND change > 0"
            ).fetchone()
            value = position if first is None else min(position, first - 1)
            base.execute("INSERT OR REPLACE INTO feed VALUES ('cursor', ?)", (value,))

    def forget_changes(self) -> None:
        """Take every change for a new one: the archive counts from the beginning again."""
        self._base.execute("UPDATE series SET change = 0")

    def take(self) -> Row | None:
        """Take the series that waits longest; None if none may be taken now."""
        now, owner = time.time(), self._registered()
        with self._change() as base:
            self._reclaim(base, now)
            found = base.execute(
                "SELECT row, study, uid, count, attempts, key FROM series WHERE state = 'queued' "
                # Nothing waits longer: the clock was set back since.
                "AND (due <= :now OR due > :now + :longest) ORDER BY due LIMIT 1",
                {"now": now, "longest": LONGEST_DUE_S},
            ).fetchone()  # fmt: skip
            if found is None:
                return None
            base.execute(
                "UPDATE series SET state = 'running', worker = ?, again = 0, since = ? WHERE row = ?",
                (owner.number, now, found[0]),
            )
        number, study, uid, count, attempts, key = found
        return Row(number=number, series=Series(study=study, uid=uid, count=count), attempts=attempts, key=key)

    def _registered(self) -> Owner:
        """Return this worker, which gets a number at first."""
        if self._owner is None:
            with ExitStack() as failed:
                with self._change() as base:
                    number = base.execute(
                        "INSERT INTO workers (started, rules) VALUES (?, ?)", (time.time(), self._rules)
                    ).lastrowid
                    sweep_locks(self._folder)
                    owner = Owner(self._folder, int(number or 0))
                    # A number that was not written down is the next worker's, too.
                    failed.callback(owner.close)
                failed.pop_all()
            self._owner = owner
        return self._owner

    def _reclaim(self, base: sqlite3.Connection, now: float) -> None:
        """Put back what workers had taken that live no more, and what this one had and could not put back."""
        rows = base.execute("SELECT row, worker, ended FROM series WHERE state = 'running'").fetchall()
        for row, worker, ended in rows:
            own = self._owner is not None and worker == self._owner.number
            if not own and is_alive(self._folder, worker):
                continue
            ended += not own
            dead = ended >= MAX_ENDED
            base.execute(
                "UPDATE series SET state = ?, worker = NULL, ended = ?, due = ?, reason = ?, since = ? WHERE row = ?",
                (
                    DEAD if dead else QUEUED, ended, now + (0 if own else delay(ended)),
                    f"the worker ended {ended} times while it did it" if ended else "", now, row,
                ),
            )  # fmt: skip

    def put_back(self, row: Row, *, due: float, attempts: int, reason: str, count: int | None = None) -> None:
        """Let a series wait; ``count`` is the number of its images, where that has changed."""
        self._end(row, QUEUED, reason, due=due, attempts=attempts, count=count)

    def finish(self, row: Row, state: str, reason: str = "", *, key: str = "", count: int | None = None) -> None:
        """End a series: done, skipped or dead; one that has changed meanwhile is queued again.

        Args:
            row: the series.
            state: DONE, SKIPPED or DEAD.
            reason: why.
            key: of its result; "" leaves that of the last one.
            count: number of images of the result.
        """
        self._end(row, state, reason, due=time.time(), attempts=row.attempts, key=key, count=count)

    def _end(
        self, row: Row, state: str, reason: str, *, due: float, attempts: int, key: str = "", count: int | None = None
    ) -> None:
        done = state == DONE
        with self._change() as base:
            base.execute(
                "UPDATE series SET state = CASE WHEN again AND :state != 'queued' THEN 'queued' ELSE :state END, "
                "worker = NULL, due = :due, attempts = CASE WHEN :done THEN 0 ELSE :attempts END, "
                "ended = CASE WHEN :done THEN 0 ELSE ended END, reason = :reason, since = :now, "
                "key = CASE WHEN :key = '' THEN key ELSE :key END, "
                # What was seen meanwhile is newer.
                "count = CASE WHEN again OR :count IS NULL THEN count ELSE :count END, again = 0 WHERE row = :row",
                {
                    "state": state, "done": done, "due": due, "attempts": attempts, "reason": reason, "key": key,
                    "count": count, "now": time.time(), "row": row.number,
                },
            )  # fmt: skip

    def plan(self, row: Row, objects: Sequence[Object]) -> None:
        """Note objects before they are stored."""
        with self._change() as base:
            # An attempt that was killed may have stored others of this result, where masks differ from run to run.
            base.executemany(
                "UPDATE objects SET key = '' WHERE row = ? AND key = ?", {(row.number, one.key) for one in objects}
            )
            base.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                [(one.uid, row.number, one.kind, one.series, one.key) for one in objects],
            )

    def objects(self, row: Row) -> list[Object]:
        """Return all objects of a series that may be in the archive."""
        found = self._base.execute("SELECT uid, class, series, key FROM objects WHERE row = ?", (row.number,))
        return [Object(uid=uid, kind=kind, series=series, key=key) for uid, kind, series, key in found]

    def forget(self, uid: str) -> None:
        """Forget an object that is in the archive no more."""
        self._base.execute("DELETE FROM objects WHERE uid = ?", (uid,))

    def is_own(self, series: str) -> bool:
        """Return whether a series is one of results."""
        return self._base.execute("SELECT 1 FROM objects WHERE series = ? LIMIT 1", (series,)).fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Return the number of series in each state."""
        found = dict(self._base.execute("SELECT state, COUNT(*) FROM series GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def rows(self, *states: str) -> list[dict[str, object]]:
        """Return what is known of the series in some states, without identifiers but the SeriesInstanceUID, ``uid``."""
        names = ("row", "state", "attempts", "reason", "since", "due", "uid")
        marks = ", ".join("?" * len(states))
        found = self._base.execute(
            f"SELECT {', '.join(names)} FROM series WHERE state IN ({marks}) ORDER BY row", states
        )
        return [dict(zip(names, row, strict=True)) for row in found]

    def retry(self, row: int | None = None) -> int:
        """Queue a dead series again, or all of them; return how many there were."""
        with self._change() as base:
            return base.execute(
                "UPDATE series SET state = 'queued', attempts = 0, ended = 0, due = ?, since = ? "
                "WHERE state = 'dead' AND (? IS NULL OR row = ?)",
                (time.time(), time.time(), row, row),
            ).rowcount

    def waiting(self) -> float | None:
        """Return when the next queued series may be taken; None if none is queued and none is running."""
        found: tuple[float | None] = self._base.execute(
            "SELECT MIN(due) FROM series WHERE state IN ('queued', 'running')"
        ).fetchone()
        return found[0]
