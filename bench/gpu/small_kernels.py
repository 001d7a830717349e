"""Two kernels that do next to nothing: one shows that a kernel compiles, starts and is right, one has only its gap."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def add_one(x: Any, y: Any, N: tl.constexpr) -> None:
    """Add 1 to N elements."""
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(y + at, tl.load(x + at) + 1)


@triton.jit  # type: ignore[untyped-decorator]
def nothing(x: Any) -> None:
    """Take the time of a launch."""
