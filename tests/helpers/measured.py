"""Files read in a process of their own under a limit of addresses, with what each said and took."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzing.seeds import bytes_of, ct_dataset

MIB = 2**20
READER = Path(__file__).with_name("measured_reader.py")
_started: list[subprocess.Popen[str]] = []


class Found(NamedTuple):
    """What was said of a file, and the process's largest resident size meanwhile in bytes."""

    said: str
    peak: int


def read_measured(paths: Sequence[Path], folder: Path) -> list[Found]:
    """Read files or folders, each in a fork of one process, which first reads a good file from ``folder``."""
    if not _started:
        _started.append(_start(folder / "good"))
    asked, answers = _started[0].stdin, _started[0].stdout
    assert asked and answers
    found = []
    for path in paths:
        asked.write(f"{path}\n")
        asked.flush()
        found.append(Found(**json.loads(answers.readline())))
        print(f"{path.name}: {found[-1].peak / MIB:.0f} MiB at most: {found[-1].said}")
    return found


def _start(good: Path) -> subprocess.Popen[str]:
    """Start the process that forks; it ends with this one."""
    good.write_bytes(bytes_of(ct_dataset()))
    command = [sys.executable, "-W", "ignore", str(READER), str(good)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # Closes its input, which ends it, and waits.
    atexit.register(process.communicate)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process
