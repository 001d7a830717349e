"""The reference LSMS in PyTorch: build side only, the runtime never imports it.

The presets can be read without PyTorch; ``LSMS`` itself is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import PRESETS, LsmsConfig, TextConfig, preset

if TYPE_CHECKING:
    from .lsms import LSMS

__all__ = ["LSMS", "PRESETS", "LsmsConfig", "TextConfig", "preset"]


def __getattr__(name: str) -> Any:
    if name != "LSMS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .lsms import LSMS

    return LSMS
