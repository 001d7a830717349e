"""The first bytes of a plan: whose it is, of which version, how long it must be, for which GPUs.

Plans are raw, as trtexec and Polygraphy read them.  Layout of TensorRT for RTX read off plans of 1.7; that of TensorRT,
whose headers are not documented, from its source: tag and version only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lsms_rt.errors import EngineInvalidError

from .variant import VARIANTS, RTX, RTX_TARGETS, TensorRtVariant, Version

LENGTH = 64  # bytes that RTX's own check of a plan wants to see
_SIZE, _VERSION, _MASK = slice(16, 24), slice(24, 28), slice(32, 40)


@dataclass(frozen=True)
class PlanHeader:
    """``version`` has four parts; ``targets`` ("sm_86", ...) are known for RTX only."""

    variant: TensorRtVariant
    version: Version
    targets: tuple[str, ...]


def read_header(plan: bytes, what: str) -> PlanHeader:
    """The header of ``plan``; ``what`` names the file in errors.

    Raises :class:`EngineInvalidError` for something else than a plan, and for one that is cut off.
    """
    variant = next((f for f in VARIANTS.values() if plan[:4] == f.tag), None)
    if variant is None or len(plan) < LENGTH:
        raise EngineInvalidError(
            f"{what} is no plan of TensorRT: it has {len(plan)} bytes and begins with {plan[:4]!r}"
        )
    version = tuple(plan[_VERSION])
    if variant is not RTX:
        return PlanHeader(variant, version, ())
    (size,) = struct.unpack("<Q", plan[_SIZE])
    if size != len(plan):
        raise EngineInvalidError(f"{what} is cut off or padded: it has {len(plan)} bytes, its header says {size}")
    (mask,) = struct.unpack("<Q", plan[_MASK])
    return PlanHeader(variant, version, tuple(name for name, bit in RTX_TARGETS.items() if mask >> bit & 1))
