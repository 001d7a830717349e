"""Check the size that a compressed frame states, before a decoder allocates memory for it.

A kilobyte of JPEG-LS that claims 65535x65535 pixels keeps its decoder busy for seconds, whatever Rows and Columns say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

# Start of frame in JPEG (all but C4, C8 and CC, which have other meanings) and in JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def check_streams(ds: Dataset, rows: int, columns: int, frames: int) -> None:
    """Raise ValueError unless every JPEG, JPEG-LS or JPEG 2000 frame is gray and of that size."""
    from pydicom.encaps import generate_frames

    offsets = None
    # The decoder will use the same table.
    if "ExtendedOffsetTable" in ds and "ExtendedOffsetTableLengths" in ds:
        offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths)
    for stream in generate_frames(ds.PixelData, number_of_frames=frames, extended_offsets=offsets):
        if stream_shape(stream) != (rows, columns, 1):
            raise ValueError("the size in a compressed frame is not Rows x Columns")


def stream_shape(stream: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) as the stream states them; None if it does not."""
    if stream[:2] == b"\xff\xd8":
        return _jpeg_shape(stream)
    codestream = stream if stream[:2] == b"\xff\x4f" else _codestream(stream)
    if len(codestream) < 42 or codestream[:4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = (int.from_bytes(codestream[n : n + 4], "big") for n in (8, 12, 16, 20))
    return bottom - top, right - left, int.from_bytes(codestream[40:42], "big")


def _jpeg_shape(stream: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        # a fill byte
        if marker == 0xFF:
            at += 1
        elif marker in _FRAME_MARKERS:
            rows, columns = (int.from_bytes(stream[at + n : at + n + 2], "big") for n in (5, 7))
            return rows, columns, stream[at + 9]
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _codestream(stream: bytes) -> bytes:
    """Return the content of the box jp2c of a JP2 file; empty if there is none."""
    at = 0
    while at + 8 <= len(stream):
        size, kind = int.from_bytes(stream[at : at + 4], "big"), stream[at + 4 : at + 8]
        if kind == b"jp2c":
            return stream[at + (16 if size == 1 else 8) :]
        if size < 8:
            return b""
        at += size
    return b""
