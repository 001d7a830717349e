"""What messages may hold: no names, unless they are asked for; and nothing that a terminal would obey.

A file or folder name often contains a patient's name or number, so messages say ``file 12 of 80``, ``the file``,
``the folder``.  The numbers count, from 1, all visible files and links below a folder (no part of the path begins with
a dot), sorted by path, upper case before lower case.  This command prints the twelfth:

    find . '(' -type f -o -type l ')' -not -path '*/.*' | LC_ALL=C sort | sed -n 12p

Members of an archive are numbered like the files of the unpacked folder, images of a DICOMDIR in the order of its
records.  ``--names``, in Python ``show_names()``, shows names instead.

The errors of other libraries, which ours are raised from, hold such values, too: ``errors.LsmsError`` does not show
what it was raised from, unless names are shown.
"""

from __future__ import annotations

import os
from pathlib import PurePath

NAMES_HINT = "--names shows file names"
_OF_A_SHELL = str.maketrans(dict.fromkeys("`$|;&<>", " "))
_shown = False


def show_names(on: bool = True) -> None:
    """Include file names and UID suffixes in errors, logs and ``CtSlice.source``, in the whole process.

    Args:
        on: show names, or hide them again.
    """
    global _shown
    _shown = on


def names_shown() -> bool:
    """Return whether names are shown in messages; False unless ``show_names`` was called."""
    return _shown


def label(path: str | os.PathLike[str], neutral: str) -> str:
    """Return a file's name for messages: the last part of its path if names are shown, else ``neutral``."""
    return one_line(PurePath(path).name or str(path)) if _shown else neutral


def named(what: str, name: object) -> str:
    """Return ``mask 'a.png'`` for messages if names are shown, else ``the mask``."""
    return f"{what} {one_line(name)!r}" if _shown else f"the {what}"


def one_line(text: object) -> str:
    """Return text made printable: one line, in which a terminal finds no commands."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def brief(text: object, limit: int = 300) -> str:
    """Return text of a file or a library for a message.

    It is printable, has at most ``limit`` characters, and none that a shell would act on: messages name commands to
    run, which a text that they quote must not continue.
    """
    plain = one_line(str(text).translate(_OF_A_SHELL))
    return plain if len(plain) <= limit else f"{plain[:limit]}..."


def with_hint(message: str) -> str:
    """Return the message, followed by how to see the file's name if names are hidden."""
    return message if _shown else f"{message} ({NAMES_HINT})"
