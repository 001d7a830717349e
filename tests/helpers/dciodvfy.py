"""``dciodvfy`` (Debian's package dicom3tools): checks a DICOM object against the definition of its class."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def check(path: Path, definition: str, tolerated: Sequence[str] = ()) -> None:
    """No error is found, but for those that begin with a tolerated text; without dciodvfy nothing is checked.

    Args:
        path: the object.
        definition: what dciodvfy calls the definition; "" for one that it does not know.
        tolerated: beginnings of messages, each of which must occur.
    """
    if not shutil.which("dciodvfy"):
        return
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    # It knew what it looked at.
    assert not definition or definition in said, said
    errors = [line.removeprefix("Error - ") for line in said if line.startswith("Error")]
    assert [error for error in errors if not error.startswith(tuple(tolerated))] == []
    assert all(any(error.startswith(text) for error in errors) for text in tolerated), errors
