"""Copies between the host and the device of a runner.

A GPU copies pageable memory in pieces, and the host waits.  So on CUDA both ways lead through page-locked memory, in
the type and size that the data has at its source: images are converted on the GPU, logits at home.  PyTorch's allocator
keeps that memory for the next call, and gives none away that a copy still reads.

A size's first calls allocate such memory, also while another runner captures a graph.  CUDA allows that, because a
capture forbids it to its own thread only (``capture_error_mode="thread_local"``), which allocates none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def bring(images: Tensor, device: torch.device, dtype: torch.dtype, into: Tensor | None = None) -> Tensor:
    """Copy ``images`` from anywhere to a device in a type, or into a tensor there; the host does not wait.

    The caller may change ``images`` afterwards.
    """
    if device.type == "cuda" and images.device.type == "cpu":
        staged = page_locked(images.shape, images.dtype)
        staged.copy_(images)
        images = staged.to(device, non_blocking=True)
    return images.to(device, dtype) if into is None else into.copy_(images)


def send(logits: Tensor) -> Callable[[], Tensor]:
    """Start to copy ``logits`` to the host; the result waits for that copy alone, and returns them in float32.

    What is queued on the device afterwards may overwrite ``logits``.
    """
    if logits.device.type != "cuda":
        ready = logits.to(torch.float32, copy=True)
        return lambda: ready
    home = page_locked(logits.shape, logits.dtype)
    home.copy_(logits, non_blocking=True)
    arrived = torch.cuda.current_stream(logits.device).record_event()

    def wait() -> Tensor:
        arrived.synchronize()
        # A copy, because page-locked memory is scarce.
        return home.to(torch.float32, copy=True)

    return wait


def page_locked(size: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)
