"""Arrays on the wire, in the form of VoxTell's server and its clients: a header, then Blosc2 blocks.

    "VXA2", length of the type (1 byte), type as NumPy writes it, number of axes (1 byte), sizes (8 bytes each, little
    endian), bytes in all (8), then for each block of at most 1 GiB: its bytes (8), compressed bytes (8), the block

The form was read off the client napari-voxtell 0.2.0, with which a test compares it.
"""

from __future__ import annotations

import importlib
import math
import struct
from typing import Any

import numpy as np

from .replies import bad

MAGIC = b"VXA2"
BLOCK = 2**30
TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "|b1")


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

    Raises:
        RequestError: the bytes are not of this form, or hold more.
    """
    blosc2: Any = importlib.import_module("blosc2")
    try:
        if data[:4] != MAGIC:
            raise ValueError
        at = 5 + data[4]
        name = data[5:at].decode("ascii")
        count = data[at]
        shape = struct.unpack_from(f"<{count}Q", data, at + 1)
        at += 1 + 8 * count
        (total,) = struct.unpack_from("<Q", data, at)
        at += 8
        if name not in TYPES or count > 4 or math.prod(shape) * np.dtype(name).itemsize != total or total > limit:
            raise ValueError
        raw = bytearray()
        while at < len(data):
            size, packed = struct.unpack_from("<QQ", data, at)
            block = data[at + 16 : at + 16 + packed]
            # The block's own header states what it inflates to.
            stated = struct.unpack_from("<I", block, 4)[0]
            if len(block) != packed or stated != size or len(raw) + size > total:
                raise ValueError
            raw += blosc2.decompress(block)
            at += 16 + packed
        if len(raw) != total:
            raise ValueError
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, RuntimeError):
        raise bad("the body is no array in VoxTell's form, or too large; see docs/serving.md") from None
    return np.frombuffer(raw, np.dtype(name)).reshape(shape)
