"""The reference LSMS in PyTorch: build side only, the runtime never imports it."""

from .config import PRESETS, LsmsConfig, TextConfig, preset
from .lsms import LSMS

__all__ = ["LSMS", "PRESETS", "LsmsConfig", "TextConfig", "preset"]
