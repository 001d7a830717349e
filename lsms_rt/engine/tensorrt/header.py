"""The header of a plan: its library, version, length and GPU architectures.

Plans are raw, as trtexec and Polygraphy read them.  The layout of TensorRT for RTX was found in plans of version 1.7.
TensorRT does not document its headers; only tag and version are known, from its source.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lsms_rt.engine.manifest import REBUILD
from lsms_rt.errors import EngineInvalidError

from .variant import RTX, RTX_TARGETS, VARIANTS, TensorRtVariant, Version

# bytes of the fields below, and of RTX's header
LENGTH = 64
_SIZE, _VERSION, _MASK = slice(16, 24), slice(24, 28), slice(32, 40)


@dataclass(frozen=True)
class PlanHeader:
    """A plan's header: ``version`` has four parts; ``targets`` ("sm_86", ...) are known for RTX only."""

    variant: TensorRtVariant
    version: Version
    targets: tuple[str, ...]


def read_header(plan: bytes, what: str) -> PlanHeader:
    """Read the header of a plan.

    Args:
        plan: the plan.
        what: the file's name in errors.

    Raises:
        EngineInvalidError: not a plan, or truncated.
    """
    variant = next((f for f in VARIANTS.values() if plan[:4] == f.tag), None)
    if variant is None or len(plan) < LENGTH:
        raise EngineInvalidError(
            f"{what} is not a TensorRT plan: it has {len(plan)} bytes and begins with {plan[:4]!r}; {REBUILD}"
        )
    version = tuple(plan[_VERSION])
    if variant is not RTX:
        return PlanHeader(variant, version, ())
    (size,) = struct.unpack("<Q", plan[_SIZE])
    if size != len(plan):
        raise EngineInvalidError(
            f"{what} is truncated or padded: it has {len(plan)} bytes, and {size} according to its header; {REBUILD}"
        )
    (mask,) = struct.unpack("<Q", plan[_MASK])
    return PlanHeader(variant, version, tuple(name for name, bit in RTX_TARGETS.items() if mask >> bit & 1))
