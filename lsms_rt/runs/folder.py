"""The output folder: new files take the place of old ones at the end, and only of files that this command wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lsms_rt.atomic import PART, part_of, sync, unwritable
from lsms_rt.digest import sha256, sha256_of_file

from .journal import Journal

RESULTS = "results.json"
# Beginning of the name of a file that waits for the end of the run, to replace one of a finished run.
NEXT = ".next_"


class OutputFolder:
    """A folder that this command writes, locked until it is closed.

    In a folder without results.json, a file appears as soon as it is complete.  In the folder of a finished run, new
    files wait under hidden names until all are there, so that an interrupted run leaves the old results whole.  A file
    that is not as this command wrote it is never deleted: it is renamed, ``0003_mask.edited.png``.

    Args:
        path: the folder; created with access for its owner only if it does not exist.
        request: everything that the answers depend on, in plain types.

    Attributes:
        path: the folder.
        kept: one message per file that was renamed.
        removed: names of files that were deleted at the end, since they are no longer part of the results.
        started: when the folder's first run of this request began.

    Raises:
        InputError: the folder holds other files or results of another request, another run is writing to it, or it
            cannot be written.
        MachineError: the machine failed (disk full, input or output error).
    """

    def __init__(self, path: Path, request: Sequence[object]) -> None:
        self.path = path
        self.kept: list[str] = []
        self.removed: list[str] = []
        self._current: set[str] = set()
        self._waiting: set[str] = set()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = Journal(path, request)
            self.started = self._journal.started
            self._replaces = self._path(RESULTS).exists()
            # Of a run that was killed while writing.
            for file in path.iterdir():
                if PART.fullmatch(file.name):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(error) from error

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def key(self, *parts: object) -> str:
        """Return a digest of what identifies a slice, other than in any other folder."""
        joined = b"\n".join(part if isinstance(part, bytes) else repr(part).encode() for part in parts)
        return sha256(self._journal.salt.encode() + joined)

    def has_records(self) -> bool:
        """Return whether an earlier run has finished any slice."""
        return bool(self._journal)

    def find(self, key: str, names: Sequence[str]) -> tuple[dict[str, Any], list[bytes]] | None:
        """Return the record of a slice and the content of its files; None if there is none, or a file has changed."""
        entry = self._journal.find(key)
        if entry is None:
            return None
        record, digests = entry
        found = [self._content(name, digests.get(name)) for name in names]
        if None in found:
            return None
        for name, (place, _) in zip(names, filter(None, found), strict=True):
            self._current.add(name)
            if place != self._path(name):
                self._waiting.add(name)
        return record, [content for _, content in filter(None, found)]

    @contextmanager
    def new_files(
        self, *names: str, durable: bool = False, key: str = "", record: Mapping[str, Any] | None = None
    ) -> Iterator[list[Path]]:
        """Yield paths to write; at the end they become files of these names.  A path without a file is skipped.

        Args:
            *names: of the files.
            durable: wait until they are on the disk.
            key: identifies a slice.
            record: the slice's entry in results.json; None for other files.

        Raises:
            InputError, MachineError: as for the class.
        """
        parts = {name: part_of(self._path(name)) for name in names}
        try:
            yield list(parts.values())
            digests = {name: sha256_of_file(part) for name, part in parts.items() if part.exists()}
            if durable:
                for name in digests:
                    sync(parts[name])
            # A file that is there without a line would not be taken for ours.
            self._journal.add(digests, key=key, record=record)
            for name, digest in digests.items():
                self._place(parts[name], name, digest)
            if durable:
                sync(self.path)
        except OSError as error:
            raise unwritable(error) from error
        finally:
            for part in parts.values():
                with suppress(OSError):
                    part.unlink(missing_ok=True)

    def written(self, name: str) -> Path | None:
        """Return where a file is that this run has written; None if it has not."""
        if name not in self._current:
            return None
        return self._path(NEXT + name if name in self._waiting else name)

    def finish(self, results: str, stays: Callable[[str], bool]) -> None:
        """Put all new files in their places, write results.json, and delete files that are no longer part of it.

        Args:
            results: content of results.json.
            stays: whether an old file stays that this run did not write again.

        Raises:
            InputError, MachineError: as for the class.
        """
        try:
            if self._waiting:
                # Without it the folder is unfinished, until all files are in their places.
                self._set_aside(RESULTS)
                self._path(RESULTS).unlink(missing_ok=True)
            for name in sorted(self._waiting):
                self._set_aside(name)
                self._path(NEXT + name).replace(self._path(name))
            self._replaces = False
            with self.new_files(RESULTS, durable=True) as (part,):
                part.write_text(results, encoding="utf-8")
            for name in self._journal.digests:
                self._path(NEXT + name).unlink(missing_ok=True)
                if name not in self._current and not stays(name) and self._is_ours(name):
                    self._path(name).unlink()
                    self.removed.append(name)
        except OSError as error:
            raise unwritable(error) from error

    def _path(self, name: str) -> Path:
        return self.path / name

    def _place(self, part: Path, name: str, digest: str) -> None:
        target = self._path(name)
        self._current.add(name)
        if self._replaces and os.path.lexists(target):
            if self._digest(target) != digest:
                part.replace(self._path(NEXT + name))
                self._waiting.add(name)
            return
        self._set_aside(name)
        part.replace(target)

    def _set_aside(self, name: str) -> None:
        """Rename a file that is not as this command wrote it."""
        target = self._path(name)
        if not os.path.lexists(target) or self._is_ours(name):
            return
        stem, _, extension = name.partition(".")
        numbers = ("", *range(2, 10_000))
        names = (f"{stem}.edited{number}.{extension}" for number in numbers)
        other = next(other for other in names if not os.path.lexists(self._path(other)))
        target.rename(self._path(other))
        self.kept.append(f"{name} was changed by hand; it is kept as {other}")

    def _is_ours(self, name: str) -> bool:
        digest = self._digest(self._path(name))
        return digest is not None and digest in self._journal.digests.get(name, ())

    def _digest(self, path: Path) -> str | None:
        """Return the digest of a regular file; None for anything else."""
        return sha256_of_file(path) if path.is_file() and not path.is_symlink() else None

    def _content(self, name: str, digest: str | None) -> tuple[Path, bytes] | None:
        """Return where a file with this digest is, and its content."""
        for path in (self._path(name), self._path(NEXT + name)):
            with suppress(OSError):
                content = path.read_bytes()
                if sha256(content) == digest:
                    return path, content
        return None
