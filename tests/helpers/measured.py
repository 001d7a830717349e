"""Files read in a process of their own under a limit of addresses, with what each said and took."""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from fuzzing.seeds import bytes_of, ct_dataset

MIB = 2**20
READER = Path(__file__).with_name("measured_reader.py")


class Found(NamedTuple):
    """What was said of a file, and the process's largest resident size meanwhile in bytes."""

    said: str
    peak: int


def read_measured(paths: Sequence[Path], folder: Path) -> list[Found]:
    """Read files or folders, each in a fork of one process; ``folder`` is not used any more."""
    asked, answers = _reader()
    found = []
    for path in paths:
        asked.write(f"{path}\n")
        asked.flush()
        found.append(Found(**json.loads(answers.readline())))
        print(f"{path.name}: {found[-1].peak / MIB:.0f} MiB at most: {found[-1].said}")
    return found


@functools.cache
def _reader() -> tuple[IO[str], IO[str]]:
    """Start the process, which ends with this one, and has read a good file."""
    with tempfile.NamedTemporaryFile() as good:
        good.write(bytes_of(ct_dataset()))
        good.flush()
        command = [sys.executable, "-W", "ignore", str(READER), good.name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        atexit.register(process.communicate)
        assert process.stdout.readline() == "ready\n"
    return process.stdin, process.stdout
