"""Reads files, each in a fork of this process, and prints what was said and how much memory it took.

The imports, which take longer than most files, are made once.  The paths are lines of standard input; the answers are
lines of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

# What readers import only when they need it counts as no file's memory.
import nibabel  # noqa: F401
import PIL.Image  # noqa: F401

from lsms_rt.errors import LsmsError
from lsms_rt.reading.load import load_slices
from lsms_rt.reading.stated import Stated

SECONDS = 120
# A length of 4 GiB is not to be believed.
ADDRESSES = 4 * 2**30


def peak() -> int:
    """The largest resident size of this process, in bytes; a fork begins with what it shares."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def read(path: str) -> None:
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    try:
        said = f"read {len(load_slices(path, stated=Stated(window=(50, 350))))}"
    except LsmsError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps({"said": said, "peak": peak()}), flush=True)


def main() -> None:
    """The argument is a file that can be read: what that imports and keeps is there before the first fork."""
    load_slices(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                read(line.rstrip("\n"))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(json.dumps({"said": f"the process ended with {status}", "peak": 0}), flush=True)


if __name__ == "__main__":
    main()
