"""What PTX's integer instructions compute, for all threads at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Bits of a register's value, one per thread or one for all; None if it is unknown.
Value = Any
WARP = 32


class NotComputable(ValueError):
    """The PTX has a branch or an address that depends on data, or an instruction that is not known here."""


def _signed(value: Value, bits: int) -> Value:
    shift = 64 - bits
    return (value << np.uint64(shift)).astype(np.int64) >> np.int64(shift)


def _cut(value: Value, bits: int) -> Value:
    value = np.asarray(value).astype(np.uint64)
    return value if bits >= 64 else value & np.uint64((1 << bits) - 1)


def _wide(value: Value, kind: str, bits: int) -> Value:
    return _signed(value, bits) if kind.startswith("s") else value.astype(np.int64) if bits < 64 else value


def _plain(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda parts, kind, bits, *values: _cut(function(*values), bits)


def _multiply(parts: list[str], kind: str, bits: int, a: Value, b: Value, c: Value = None) -> Value:
    product = _wide(a, kind, bits) * _wide(b, kind, bits)
    wide = 2 * bits if "wide" in parts else bits
    if "hi" in parts:
        product = product >> (np.int64(bits) if product.dtype == np.int64 else np.uint64(bits))
    result = _cut(product, wide)
    return result if c is None else _cut(result + c, wide)


def _shift_right(parts: list[str], kind: str, bits: int, a: Value, b: Value) -> Value:
    amount = np.minimum(b, np.uint64(63))
    return _cut(_signed(a, bits) >> amount.astype(np.int64) if kind.startswith("s") else a >> amount, bits)


def _field(parts: list[str], kind: str, bits: int, a: Value, start: Value, length: Value) -> Value:
    part = (a >> start) & ((np.uint64(1) << length) - np.uint64(1))
    return _cut(_signed(part, int(length)), bits) if kind.startswith("s") and int(length) else part


def _compare(parts: list[str], kind: str, bits: int, a: Value, b: Value) -> Value:
    compare = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    }[parts[0]]  # fmt: skip
    return _cut(compare(*(_signed(v, bits) if kind.startswith("s") else v for v in (a, b))), 1)


def _convert(parts: list[str], kind: str, bits: int, a: Value) -> Value:
    to, source = parts[-2], parts[-1]
    return _cut(_signed(a, int(source[1:])) if source.startswith("s") else _cut(a, int(source[1:])), int(to[1:]))


def _shuffle(parts: list[str], kind: str, bits: int, a: Value, lane: Value, _clamp: Value, _mask: Value) -> Value:
    if np.ndim(a) == 0:
        return a
    lanes = np.broadcast_to(lane, a.shape).reshape(-1, WARP).astype(np.int64) % WARP
    if "bfly" in parts:
        lanes = lanes ^ np.arange(WARP)
    elif "idx" not in parts:
        raise NotComputable(f"shfl.{'.'.join(parts)} is not known")
    return np.take_along_axis(a.reshape(-1, WARP), lanes, 1).reshape(-1)


def _permute(parts: list[str], kind: str, bits: int, a: Value, b: Value, places: Value) -> Value:
    both, result = a | (b << np.uint64(32)), np.uint64(0)
    for i in range(4):
        place = places >> np.uint64(4 * i)
        if np.any(place & np.uint64(8)):
            raise NotComputable("prmt that repeats a sign")
        byte = (both >> (np.uint64(8) * (place & np.uint64(7)))) & np.uint64(255)
        result = result | (byte << np.uint64(8 * i))
    return result


def _extreme(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda parts, kind, bits, a, b: _cut(function(_wide(a, kind, bits), _wide(b, kind, bits)), bits)


# By the first part of an instruction's name: called with its other parts, its type, the bits of that, and its operands.
OPERATIONS: dict[str, Callable[..., Value]] = {
    "mov": _plain(lambda a: a),
    "add": _plain(lambda a, b: a + b),
    "sub": _plain(lambda a, b: a - b),
    "and": _plain(lambda a, b: a & b),
    "or": _plain(lambda a, b: a | b),
    "xor": _plain(lambda a, b: a ^ b),
    "not": _plain(lambda a: ~a),
    "neg": _plain(lambda a: np.uint64(0) - a),
    "shl": _plain(lambda a, b: np.where(b > 63, np.uint64(0), a << np.minimum(b, np.uint64(63)))),
    "shr": _shift_right,
    "mul": _multiply,
    "mad": _multiply,
    "bfe": _field,
    "setp": _compare,
    "selp": _plain(lambda a, b, p: np.where(p != 0, a, b)),
    "cvt": _convert,
    "shfl": _shuffle,
    "prmt": _permute,
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
}
