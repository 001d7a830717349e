"""Files read in a fresh process under a limit of addresses, with what each said and took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzing.seeds import bytes_of, ct_dataset

MIB = 2**20

READ = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))  # a length of 4 GiB is not to be believed
from lsms_rt.errors import LsmsError
from lsms_rt.reading.stated import Stated
from lsms_rt.reading.load import load_slices

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

load_slices(sys.argv[1])
import PIL.Image, nibabel
for path in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")
    try:
        said = f"read {len(load_slices(path, stated=Stated(window=(50, 350))))}"
    except LsmsError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps({"said": said, "peak": peak()}), flush=True)
"""


class Found(NamedTuple):
    """What was said of a file, and the process's largest resident size meanwhile in bytes."""

    said: str
    peak: int


def read_measured(paths: Sequence[Path], folder: Path) -> list[Found]:
    """Read files or folders, all in one fresh process; ``folder`` is for a good file that is read before."""
    good = folder / "good"
    good.write_bytes(bytes_of(ct_dataset()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(good), *map(str, paths)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [Found(**json.loads(line)) for line in done.stdout.splitlines()]
    for path, one in zip(paths, found, strict=True):
        print(f"{path.name}: {one.peak / MIB:.0f} MiB at most: {one.said}")
    return found
