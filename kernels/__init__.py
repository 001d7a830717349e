"""Triton kernels of the SVLA block: one operator per file, each with its plain twin."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version

# Major compute capability -> the oldest Triton (major, minor) without known miscompilations of products on tensor cores
# in loops there, which the kernels have.  Datacenter Blackwell (10) and Jetson Thor (11) share those instructions.
OLDEST_TRITON = {10: (3, 9), 11: (3, 9)}


def missing() -> str | None:
    """Return what is missing on this machine to run the kernels, and how to get it; None if they can run."""
    import torch

    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'lsms-rt[triton]')"
    if not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, but the kernels need 8.0 or newer"
    oldest = OLDEST_TRITON.get(capability[0])
    if oldest and (triton := _triton()) < oldest:
        return (
            f"Triton {triton[0]}.{triton[1]} is known to compile wrongly for compute capability "
            f"{capability[0]}.{capability[1]} (pip install 'triton>={oldest[0]}.{oldest[1]}')"
        )
    return None


def _triton() -> tuple[int, int]:
    major, minor = version("triton").split(".")[:2]
    return int(major), int(minor)
