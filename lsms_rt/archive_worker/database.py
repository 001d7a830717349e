"""The ledger's file (SQLite)."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from lsms_rt.errors import InputError, MachineError

NAME = "ledger.sqlite"
DAMAGED = (
    f"{NAME} is damaged; stop all workers and move it away with its -wal and -shm: with start: all everything is "
    "looked at again, and results that are in the archive are not stored twice"
)
# of the tables: to be raised when they change
VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS series (
    row INTEGER PRIMARY KEY, study TEXT NOT NULL, uid TEXT NOT NULL, count INTEGER NOT NULL,
    state TEXT NOT NULL, change INTEGER NOT NULL DEFAULT 0, again INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0,
    worker INTEGER, key TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', since REAL NOT NULL,
    UNIQUE (study, uid));
CREATE INDEX IF NOT EXISTS series_due ON series (state, due);
CREATE TABLE IF NOT EXISTS objects (
    uid TEXT PRIMARY KEY, row INTEGER NOT NULL, class TEXT NOT NULL, series TEXT NOT NULL, key TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_row ON objects (row);
CREATE TABLE IF NOT EXISTS feed (name TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE IF NOT EXISTS workers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, started REAL NOT NULL, rules TEXT NOT NULL);
PRAGMA user_version = {VERSION};
COMMIT;
"""


def opened(path: Path) -> sqlite3.Connection:
    """Open the ledger, or make an empty one that its owner alone can read.

    Raises:
        InputError: it is damaged, or of another version.
        MachineError: it cannot be written.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    base = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        base.execute("PRAGMA journal_mode = WAL")
        # What is written is on the disk, so that a loss of power forgets no store.
        base.execute("PRAGMA synchronous = FULL")
        (tables,) = base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if tables and version != VERSION:
            base.close()
            raise InputError(f"{NAME} is of another version of lsms-rt; use that one, or name a new folder with state")
        base.executescript(_SCHEMA)
    except sqlite3.DatabaseError as error:
        base.close()
        if isinstance(error, sqlite3.OperationalError):
            raise MachineError(f"the ledger cannot be written ({error}); make room on its disk") from error
        raise InputError(DAMAGED) from error
    return base
