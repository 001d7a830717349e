"""The first unit of ``make gpu-check``: which machine this is, and whether a kernel compiles, starts and is right.

Triton compiles its launcher with the machine's C compiler.  Without one, or without Python's headers, every kernel
fails alike; this unit says so in seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsms_rt.kernels import missing

from .plan import other_ptxas
from .worker import NotRunError

Row = dict[str, Any]
FIELDS = (
    "name,driver_version,vbios_version,power.limit,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,"
    "clocks_throttle_reasons.active,temperature.gpu,ecc.mode.current,mig.mode.current,memory.total,memory.used"
)


def environment() -> Iterator[Row]:
    """Yield what this machine is, then the result of one small kernel."""
    yield {"kind": "environment", **software()}
    problem = missing()
    if problem:
        raise NotRunError(problem)
    import torch

    from .small_kernels import add_one

    major, minor = torch.cuda.get_device_capability()
    yield {
        "kind": "environment", "gpu": torch.cuda.get_device_name(), "capability": f"{major}.{minor}",
        "multiprocessors": torch.cuda.get_device_properties(0).multi_processor_count,
        "state": printed("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv"),
    }  # fmt: skip
    x, y = torch.arange(1024, device="cuda"), torch.empty(1024, dtype=torch.int64, device="cuda")
    add_one[(8,)](x, y, N=128)
    yield {"kind": "environment", "what": "a small kernel", "ok": bool((y == x + 1).all())}


def software() -> Row:
    """Return versions and paths; nothing here needs a GPU."""
    import torch

    row: Row = {
        "python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda,
        "cores": os.cpu_count(), "compiler": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"),
        "compute_sanitizer": shutil.which("compute-sanitizer"), "ncu": shutil.which("ncu"),
    }  # fmt: skip
    with suppress(ImportError):
        import triton

        own = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
        row |= {"triton": triton.__version__, "ptxas": printed(str(own), "--version")}
    other = other_ptxas()
    return row | ({"other_ptxas": printed(other, "--version")} if other else {})


def printed(*command: str) -> str | None:
    """Return the last lines that a tool prints, on one line; None if it does not run."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return " | ".join(done.stdout.strip().splitlines()[-2:])
    return None
