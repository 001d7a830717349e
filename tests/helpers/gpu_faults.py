"""Units of ``make gpu-check`` that go wrong, each in its own way; processes of its worker import this file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from lsms_rt.bench.gpu.worker import NotRunError

Row = dict[str, Any]
VERIFIED = {"kind": "kernels_verified", "part": "kernel", "output": "y", "shape": "c32_h4_w4_t32_fp16", "batch": 1}


def right(kernel: str = "mix") -> Iterator[Row]:
    print("words of a library on standard output")
    yield VERIFIED | {"kernel": kernel, "error": 1e-4, "ok": True}


def timed(kernel: str = "mix") -> Iterator[Row]:
    samples = {"unit": "ms", "count": 2, "p50": 0.5, "samples": [0.5, 0.5]}
    yield {
        "kind": "kernels_timed", "kernel": kernel, "shape": "c32_h4_w4_t32_fp16", "batch": 1, "ours": samples,
        "floor_ms": 0.25,
    }  # fmt: skip


def wrong(kernel: str = "mix") -> Iterator[Row]:
    yield VERIFIED | {"kernel": kernel, "error": float("nan"), "ok": False}
    yield VERIFIED | {"kernel": kernel, "batch": 2, "error": 1e-4, "ok": True}


def raises(kernel: str = "mix") -> Iterator[Row]:
    yield from right(kernel)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def aborts(kernel: str = "mix") -> Iterator[Row]:
    yield from right(kernel)
    os.kill(os.getpid(), signal.SIGABRT)


def hangs(kernel: str = "mix") -> Iterator[Row]:
    """It starts a process, too, which must not survive it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield VERIFIED | {"kernel": kernel, "error": 1e-4, "ok": True, "child": child.pid}
    time.sleep(600)


def leaves() -> Iterator[Row]:
    yield from right()
    os._exit(0)


def lacks() -> Iterator[Row]:
    raise NotRunError("pycuda is not installed")
    yield {}


def unsupported() -> Iterator[Row]:
    print("========= Error: Device not supported", file=sys.stderr)
    raise RuntimeError("no device")
    yield {}
