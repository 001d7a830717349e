"""Record of finished slices in the output folder, so that an interrupted command resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import unwritable, write_text
from lsms_rt.ct_slice import CtSlice
from lsms_rt.digest import sha256, sha256_of_file
from lsms_rt.errors import InputError
from lsms_rt.writing.answer import Answer

NAME = "progress.jsonl"
FORMAT = 1
FILES = ("mask", "overlay")


class Journal:
    """One JSON line per finished slice, after a header line that identifies the request.

    The header is a digest of engine, sentence, window and so on.  A slice is identified by its number and pixels, its
    files by their digests: slices that changed, and files that another run overwrote, are computed again.
    """

    def __init__(self, folder: Path, request: str) -> None:
        """Open or create the journal of ``folder``.

        Raises:
            InputError: the folder holds other files or results of another request, or cannot be written.
        """
        self.folder, self._file = folder, folder / NAME
        self._done: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Partial files of a run that was killed while writing.
            for part in folder.glob(".*.part*"):
                part.unlink(missing_ok=True)
            if self._file.exists():
                self._read(request)
            elif any(folder.iterdir()):
                raise InputError(
                    "the output folder is not empty and holds no results of this command; choose an empty or new "
                    "folder with -o"
                )
            else:
                write_text(self._file, json.dumps({"request": request, "format": FORMAT}) + "\n")
        except OSError as error:
            raise unwritable(error) from error

    def _read(self, request: str) -> None:
        first, *lines = self._file.read_text(encoding="utf-8", errors="replace").split("\n")
        head = _parsed(first)
        if head.get("request") != request or head.get("format") != FORMAT:
            raise InputError(
                "the output folder holds results of another input, sentence, engine, window, version or --names "
                "setting; choose another folder with -o"
            )
        for line in lines:
            entry = _parsed(line)
            if isinstance(entry.get("record"), dict) and isinstance(entry.get("files"), dict):
                self._done[str(entry.get("key"))] = entry
        # A line that was cut off must not merge with the next one.
        if lines[-1:] != [""]:
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n")

    def known(self, number: int, ct: CtSlice, text: str) -> Answer | None:
        """Return the answer of an earlier run for this slice; None if there is none or its files have changed."""
        # Without entries there is no need to hash the pixels, which `add` will do.
        entry = self._done.get(_key(number, ct)) if self._done else None
        if entry is None:
            return None
        # The file may have another label in this run.
        record = entry["record"] | {"source": ct.source, "frame": ct.frame}
        try:
            if any(sha256_of_file(self.folder / record[name]) != entry["files"][name] for name in FILES):
                return None
        except (OSError, KeyError, TypeError):
            return None
        return Answer(ct, read_mask(self.folder / record["mask"]), text, record)

    def add(self, number: int, answer: Answer) -> None:
        """Record a slice as finished; its files must have been written."""
        try:
            files = {name: sha256_of_file(self.folder / answer.record[name]) for name in FILES}
            line = json.dumps({"key": _key(number, answer.ct), "record": answer.record, "files": files})
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise unwritable(error) from error


def request_digest(*parts: object) -> str:
    """Return a digest of everything the answers depend on.

    It hides the sentence and the paths, though a guess can be confirmed.
    """
    return sha256(json.dumps(parts, default=str).encode())


def read_mask(path: Path) -> np.ndarray:
    """Read a mask's PNG as bool (H, W)."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")) > 127


def _key(number: int, ct: CtSlice) -> str:
    geometry = repr((ct.hu.shape, ct.spacing_mm, ct.flips, ct.transposed, ct.position_mm))
    return f"{number}:{sha256(ct.hu.tobytes() + geometry.encode())}"


def _parsed(line: str) -> dict[str, Any]:
    """Parse one line; return an empty dict for a line that was cut off."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
