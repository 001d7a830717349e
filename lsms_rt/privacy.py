"""How messages call a file: by its place, unless its name was asked for.

A file or folder name often holds a patient's name or number, hence ``file 12 of 80``, ``the file``, ``the folder``.
The numbers count from 1 through all visible files below a folder (no part of the path begins with a dot), sorted by
path, capitals before small letters. The twelfth is what this prints in the folder:

    find . -type f -not -path '*/.*' | LC_ALL=C sort | sed -n 12p

Members of an archive are numbered as the files of the unpacked folder would be, images of a DICOMDIR in the order of
its records. ``--names``, in Python ``show_names()``, shows names instead.
"""

from __future__ import annotations

import os
from pathlib import PurePath

NAMES_HINT = "--names shows file names"
_shown = False


def show_names(on: bool = True) -> None:
    """Let file names and the ends of UIDs stand in errors, logs and ``CtSlice.source``, in this whole process."""
    global _shown
    _shown = on


def names_shown() -> bool:
    """Whether names may stand in messages; False unless ``show_names`` was called."""
    return _shown


def label(path: str | os.PathLike[str], neutral: str) -> str:
    """What to call a file: the last part of its path where names are shown, ``neutral`` otherwise."""
    return (PurePath(path).name or str(path)) if _shown else neutral


def with_hint(message: str) -> str:
    """The message, and how to see which file it is about."""
    return message if _shown else f"{message} ({NAMES_HINT})"
