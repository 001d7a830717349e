"""What every timed unit needs: the stopwatch, the GPU's ceilings, and what a kernel's launch takes of the GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from lsms_rt.bench.timing import GpuStopwatch
from lsms_rt.kernels.launch import DTYPES, Launch

from . import roofline

Row = dict[str, Any]


def gpu_stopwatch() -> GpuStopwatch:
    """Return the stopwatch of the current GPU; PyTorch then chooses its fastest convolutions."""
    torch.backends.cudnn.benchmark = True
    return GpuStopwatch()


def ceilings_of(name: str) -> roofline.Gpu:
    """Return the ceilings for a GPU's name; those of the H100 SXM if it is unknown, and every record names whose."""
    known = roofline.GPUS | roofline.MORE_GPUS
    keys = [key for key in known if all(word in name.lower() for word in key.split())]
    return known[max(keys, key=len, default="h100")]


def current_ceilings() -> roofline.Gpu:
    return ceilings_of(torch.cuda.get_device_name())


def resources(launches: Iterable[Launch]) -> Row:
    """Return registers, spills and shared memory of the code that runs, the largest of several launches.

    Nothing is compiled again: the same types are found in Triton's cache.  Empty in Triton's interpreter.
    """
    found: Row = {}
    for launch in launches:
        if not hasattr(launch.kernel, "warmup"):
            return {}
        types = [DTYPES[dtype] for dtype in launch.arguments.values()]
        compiled = launch.kernel.warmup(*types, **launch.options(), grid=(1,))
        if compiled is None:
            return {}
        # Loads the code, which is when the driver says what it takes; it has no public name.
        getattr(compiled, "_init_handles", lambda: None)()
        values = {"registers": compiled.n_regs, "spills": compiled.n_spills, "shared": compiled.metadata.shared}
        found = {name: max(value or 0, found.get(name, 0)) for name, value in values.items()}
    return found
