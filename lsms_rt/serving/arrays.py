"""Arrays on the wire, in the form of VoxTell's server and its clients: a header, then Blosc2 blocks.

    "VXA2", length of the type (1 byte), type as NumPy writes it, number of axes (1 byte), sizes (8 bytes each, little
    endian), bytes in all (8), then for each block of at most 1 GiB: its bytes (8), compressed bytes (8), the block

The form was read off the client napari-voxtell 0.2.0, with which a test compares it.
"""

from __future__ import annotations

import importlib
import math
import os
import struct
import subprocess
import sys
from typing import Any

import numpy as np

from .replies import bad

MAGIC = b"VXA2"
BLOCK = 2**30
TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "|b1")
# Lengths of a Blosc2 block's header and of its longer form, and the largest block within a block that we take.
HEADER, LONG_HEADER, INNER = 16, 32, 2**30
# seconds that inflating one body may take
LIMIT = 120
# What the process that inflates gets of the environment: no key, nor anything else that is secret.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME")


def pack(array: np.ndarray) -> bytes:
    """Return an array in this form."""
    blosc2: Any = importlib.import_module("blosc2")
    array = np.ascontiguousarray(array)
    name, raw = array.dtype.str.encode(), array.tobytes()
    parts = [MAGIC, bytes([len(name)]), name, struct.pack(f"<B{array.ndim}Q", array.ndim, *array.shape)]
    parts.append(struct.pack("<Q", len(raw)))
    for start in range(0, len(raw), BLOCK):
        block = raw[start : start + BLOCK]
        packed = blosc2.compress(block, typesize=array.itemsize)
        parts += [struct.pack("<QQ", len(block), len(packed)), packed]
    return b"".join(parts)


def unpack(data: bytes, limit: int) -> np.ndarray:
    """Return the array of this form; at most ``limit`` bytes of it.

    The blocks are inflated in a process of their own, which holds nothing but them.

    Raises:
        RequestError: the bytes are not of this form, or hold more.
    """
    try:
        name, shape, total, at = _head(data)
        if total > limit:
            raise ValueError
        _check_blocks(data, at, total)
        raw = _inflated(memoryview(data)[at:], total)
        if len(raw) != total:
            raise ValueError
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, subprocess.SubprocessError):
        raise bad("the body is no array in VoxTell's form, or too large; see docs/serving.md") from None
    return np.frombuffer(raw, np.dtype(name)).reshape(shape)


def _head(data: bytes) -> tuple[str, tuple[int, ...], int, int]:
    """Return type, shape, bytes in all, and where the blocks begin."""
    if data[:4] != MAGIC:
        raise ValueError
    at = 5 + data[4]
    name = data[5:at].decode("ascii")
    count = data[at]
    if name not in TYPES or count > 4:
        raise ValueError
    shape = struct.unpack_from(f"<{count}Q", data, at + 1)
    at += 1 + 8 * count
    (total,) = struct.unpack_from("<Q", data, at)
    if math.prod(shape) * np.dtype(name).itemsize != total:
        raise ValueError
    return name, shape, total, at + 8


def _check_blocks(data: bytes, at: int, total: int) -> None:
    """Raise ValueError unless the blocks lie one after the other to the end, and state ``total`` bytes."""
    stated = 0
    while at < len(data):
        size, packed = struct.unpack_from("<QQ", data, at)
        at += 16
        if not HEADER <= packed <= len(data) - at:
            raise ValueError
        _check_header(data[at : at + LONG_HEADER], size, packed)
        stated += size
        at += packed
    if stated != total:
        raise ValueError


def _check_header(header: bytes, size: int, packed: int) -> None:
    """Raise ValueError unless a block's header fits its bytes and asks for the library's own codecs and filters only.

    The decoder believes the header: where it says more than there is, memory beyond the block is read.
    """
    flags = header[2]
    whole, inner, compressed = struct.unpack_from("<III", header, 4)
    if whole != size or compressed != packed or inner > min(size, INNER) or (size and not inner):
        raise ValueError
    # Stored as it is.
    plain = bool(flags & 0x02)
    # Bits 5 to 7: BloscLZ, LZ4, LZ4HC, zlib or Zstandard; others are loaded as plugins.
    if flags >> 5 > 4:
        raise ValueError
    # Both kinds of shuffling at once say that the header is long.
    if flags & 0x05 != 0x05:
        if plain and packed != HEADER + size:
            raise ValueError
        return
    if packed < LONG_HEADER:
        raise ValueError
    # None, shuffle and bitshuffle; the others refer to something else, or are plugins.
    special = header[31] >> 4 & 7
    if any(one > 2 for one in header[16:22]) or header[31] & 0x8F or special > 3:
        raise ValueError
    if plain and not special and packed != LONG_HEADER + size:
        raise ValueError


def _inflated(blocks: memoryview, total: int) -> bytes:
    command = [sys.executable, "-m", "lsms_rt.serving.unpack_process", str(total)]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    done = subprocess.run(command, input=blocks, capture_output=True, env=environment, timeout=LIMIT, check=True)
    return done.stdout
