"""Deterministic damage: the same case and the same random.Random give the same bytes.

Bytes of any format are damaged here; what knows a format's structure is in structure.py, engines.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

from fuzzing import structure
from fuzzing.case import Case

Change = Callable[[bytes, Random], bytes]
EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
_VR = re.compile(rb"(?<=[\x00-\xff]{4})(?:A[EST]|CS|D[AST]|F[DL]|IS|L[OT]|O[BDFLVW]|PN|S[HLQSTV]|TM|U[CILNRSTV])")
# Bytes; growth by duplication ends here.
_MOST = 2 * 2**20


def flip_bits(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_head_bits(data: bytes, rng: Random) -> bytes:
    """Headers decide more than pixels, and are a small part of a file."""
    head = min(len(data), 400)
    return flip_bits(data[:head], rng) + data[head:]


def random_bytes(data: bytes, rng: Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
    return data[:at] + rng.randbytes(size) + data[at + size :]


def truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def append(data: bytes, rng: Random) -> bytes:
    return data + rng.choice((b"\0" * 64, rng.randbytes(64), data[-200:], data))


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 8, 12, 64, 512)))


def remove_block(data: bytes, rng: Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def duplicate_block(data: bytes, rng: Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 100)) + data[end:]


def swap_blocks(data: bytes, rng: Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    size = min(rng.choice((2, 4, 8, 64)), b - a, len(data) - b)
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def extreme_integer(data: bytes, rng: Random) -> bytes:
    """Some integer, wherever it is, becomes the least or largest of its size, either byte order."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(EXTREMES) if rng.random() < 0.8 else 2**63
    raw = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    at = rng.randrange(min(len(data), rng.choice((256, 1024, 2**30))))
    return data[:at] + raw + data[at + size :]


def attack_length(data: bytes, rng: Random) -> bytes:
    """The length behind an explicit VR becomes wrong; other formats get an extreme integer."""
    found = [m.start() for m in _VR.finditer(data[: 2**16])]
    if not found:
        return extreme_integer(data, rng)
    at, value = rng.choice(found) + 2, rng.choice(EXTREMES)
    short = struct.pack("<H", value & 0xFFFF)
    long = b"\0\0" + struct.pack("<I", value)
    raw = long if data[at - 2 : at] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR") else short
    return data[:at] + raw + data[at + len(raw) :]


def change_vr(data: bytes, rng: Random) -> bytes:
    found = [m.start() for m in _VR.finditer(data[: 2**16])]
    if not found:
        return random_bytes(data, rng)
    at = rng.choice(found)
    vr = rng.choice((b"UI", b"US", b"SQ", b"OB", b"UN", b"DS", b"IS", b"AT", b"FD", b"UT", b"PN", b"??", b"\0\0"))
    return data[:at] + vr + data[at + 2 :]


def swap_tags(data: bytes, rng: Random) -> bytes:
    """Two elements exchange their tags, values stay."""
    found = [m.start() - 4 for m in _VR.finditer(data[: 2**16])]
    if len(found) < 2:
        return swap_blocks(data, rng)
    a, b = sorted(rng.sample(found, 2))
    return data[:a] + data[b : b + 4] + data[a + 4 : b] + data[a : a + 4] + data[b + 4 :]


BYTES: tuple[Change, ...] = (
    flip_bits, flip_head_bits, random_bytes, truncate, append, remove_block, duplicate_block, swap_blocks,
    extreme_integer, attack_length, change_vr, swap_tags,
)  # fmt: skip


def splice(data: bytes, other: bytes, rng: Random) -> bytes:
    """The beginning of one file and the end of another."""
    if not data or not other:
        return data or other
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def damage(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes of bytes; now and then a splice with another file."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            return data
        if others and rng.random() < 0.06:
            data = splice(data, rng.choice(others), rng)
        else:
            data = rng.choice(BYTES)(data, rng)[:_MOST]
    return data


def mutate(case: Case, rng: Random, others: Sequence[Case] = ()) -> Case:
    """A damaged copy: half of the time by its bytes, half by its structure where there is one."""
    name = rng.choice(sorted(case.files))
    if case.format == "folder" and rng.random() < 0.1:
        return structure.change_folder(case, rng)
    if case.format == "dicomdir" and rng.random() < 0.6:
        name = "DICOMDIR"
    spare = [data for other in others for data in other.files.values()]
    form = "dicom" if name.endswith(".dcm") or case.format.startswith("dicom") else case.format
    changes = structure.CHANGES.get(form, ())
    data = case.files[name]
    if changes and rng.random() < 0.5:
        data = rng.choice(changes)(data, rng)
        if rng.random() < 0.7:
            return case.with_file(name, data)
    return case.with_file(name, damage(data, rng, spare))
