"""What a folder of results holds already, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import atomic_file, unwritable
from lsms_rt.ct_slice import CtSlice
from lsms_rt.digest import sha256, sha256_of_file
from lsms_rt.errors import InputError
from lsms_rt.writing.answer import Answer

NAME = "progress.jsonl"
FORMAT = 1
FILES = ("mask", "overlay")


class Journal:
    """A line a finished slice, behind one that says which request it is: engine, sentence and window, as a digest.

    A slice is known by its place in the run and its pixels, and its files by their digests: what has changed, and what
    another run wrote over, is computed again.
    """

    def __init__(self, folder: Path, request: str) -> None:
        """Open or begin the journal of ``folder``.  Raises :class:`InputError` where it holds anything else."""
        self.folder, self._file = folder, folder / NAME
        self._done: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob(".*.part*"):  # of a run that was killed while it wrote
                part.unlink(missing_ok=True)
            if self._file.exists():
                self._read(request)
            elif any(folder.iterdir()):
                raise InputError(
                    "the output folder is not empty and holds no results of this command; results are not mixed, "
                    "choose another -o"
                )
            else:
                with atomic_file(self._file) as part:
                    part.write_text(json.dumps({"request": request, "format": FORMAT}) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(error) from error

    def _read(self, request: str) -> None:
        first, *lines = self._file.read_text(encoding="utf-8", errors="replace").split("\n")
        head = _parsed(first)
        if head.get("request") != request or head.get("format") != FORMAT:
            raise InputError(
                "the output folder holds results of another input, sentence, engine, window or version, or with other "
                "--names; choose another -o"
            )
        for line in lines:
            entry = _parsed(line)
            if isinstance(entry.get("record"), dict) and isinstance(entry.get("files"), dict):
                self._done[str(entry.get("key"))] = entry
        if lines[-1:] != [""]:  # a line that was cut off must not swallow the next one
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n")

    def known(self, number: int, ct: CtSlice, text: str) -> Answer | None:
        """The answer that a run before gave for this slice, if its files are there as that run wrote them."""
        entry = self._done.get(_key(number, ct)) if self._done else None  # a first run hashes its pixels once
        if entry is None:
            return None
        record = entry["record"] | {"source": ct.source, "frame": ct.frame}  # what it is called now
        try:
            if any(sha256_of_file(self.folder / record[name]) != entry["files"][name] for name in FILES):
                return None
        except (OSError, KeyError, TypeError):
            return None
        return Answer(ct, read_mask(self.folder / record["mask"]), text, record)

    def add(self, number: int, answer: Answer) -> None:
        """Once its files are written."""
        try:
            files = {name: sha256_of_file(self.folder / answer.record[name]) for name in FILES}
            line = json.dumps({"key": _key(number, answer.ct), "record": answer.record, "files": files})
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise unwritable(error) from error


def request_digest(*parts: object) -> str:
    """Of what the answers depend on.  It tells no sentence or path, but who guesses one can see that it was it."""
    return sha256(json.dumps(parts, default=str).encode())


def read_mask(path: Path) -> np.ndarray:
    """bool (H, W) of a mask's PNG."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")) > 127


def _key(number: int, ct: CtSlice) -> str:
    geometry = repr((ct.hu.shape, ct.spacing_mm, ct.flips, ct.transposed, ct.position_mm))
    return f"{number}:{sha256(ct.hu.tobytes() + geometry.encode())}"


def _parsed(line: str) -> dict[str, Any]:
    """A line's object; empty for one that was cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
