"""Programmatic dependent launch: a kernel starts while the one before it still runs, and waits for its results.

A launch costs about a microsecond of an idle GPU, which a block of 10 to 12 launches pays every time.  On compute
capability 9.0 and later the programs of the next kernel may be placed on processors as soon as all of this kernel's
have begun; each then waits until everything before it is finished and visible.  Every kernel of ours waits before its
first load, so a result is complete, and memory that is reused is free, as if kernels ran one after the other.  Other
kernels among them (PyTorch's) start after the end of the one before, as ever.

Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization"; PTX ISA, griddepcontrol.
"""

from __future__ import annotations

import functools
import os
import re

import triton
import triton.language as tl

# Environment variable: 0 runs kernels strictly one after the other.
VARIABLE = "LSMS_RT_OVERLAP"
MIN_CAPABILITY = 9
# Instructions that use global memory, with or without a guard.
EARLY = re.compile(r"\s*(@!?\S+\s+)?(ld\.global|st\.global|cp\.async\.c|cp\.async\.bulk|atom\.|red\.)")


@triton.jit
def after_previous(OVERLAP: tl.constexpr):
    """Let the next kernel start, and wait for the one before; nothing without overlap.  First in every kernel."""
    if OVERLAP == 1:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    if OVERLAP == 2:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    if OVERLAP == 3:
        tl.extra.cuda.gdc_wait()


def overlaps() -> bool:
    """Return whether kernels overlap on the current GPU; never in Triton's interpreter."""
    if not hasattr(after_previous, "arg_names") or not isinstance(after_previous, triton.JITFunction):
        return False
    return mode() != 0 and _can(_device())


def mode() -> int:
    """Return how kernels overlap: 0 not; 1 the next one may start at once, 2 when this one runs, 3 when it ends."""
    return int(os.environ.get(VARIABLE, "0"))


def _device() -> int | None:
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else None


@functools.cache
def _can(device: int | None) -> bool:
    import torch

    return device is not None and torch.cuda.get_device_capability(device)[0] >= MIN_CAPABILITY


def waits_late(ptx: str) -> list[str]:
    """Return what is wrong with the wait in the code of a kernel that overlaps: global memory is used before it."""
    before, wait, _ = ptx.partition("griddepcontrol.wait")
    if not wait:
        return ["it does not wait for the kernel before it"]
    early = [line.strip() for line in before.splitlines() if EARLY.match(line)]
    return [f"before the wait for the kernel before it: {early[0]}"] if early else []
