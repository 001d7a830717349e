"""Triton kernels of the SVLA block: one operator per file, each with its plain twin."""

from __future__ import annotations

import importlib.util


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
    return None
