"""Bodies of several parts, as DICOMweb sends DICOM files."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from .retry import ArchiveFailedError

# of the lines above a part
MAX_HEAD = 16 * 1024
KIND = 'multipart/related; type="application/dicom"'


def boundary_of(content_type: str) -> bytes:
    """Return what separates the parts of a body; ArchiveFailedError if it has none."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        raise ArchiveFailedError("the archive's answer is not a multipart body, as WADO-RS sends; check the URL")
    return boundary.encode("ascii", "replace")


def save_parts(chunks: Iterable[bytes], boundary: bytes, new_file: Callable[[int], BinaryIO]) -> int:
    """Write each part of a body into a file.

    Args:
        chunks: the body.
        boundary: what separates its parts.
        new_file: opens the file of a part, by its number from 0.

    Returns:
        The number of parts.

    Raises:
        ArchiveFailedError: the body ends before its last boundary.
    """
    delimiter = b"\r\n--" + boundary
    # The first boundary may be at the very beginning.
    buffer, count, in_head = bytearray(b"\r\n"), 0, False
    file: BinaryIO | None = None
    try:
        for chunk in chunks:
            buffer += chunk
            while True:
                if in_head:
                    if buffer[:2] == b"--":
                        return count
                    end = buffer.find(b"\r\n\r\n")
                    if end < 0 and len(buffer) <= MAX_HEAD:
                        break
                    if not 0 <= end <= MAX_HEAD:
                        raise ArchiveFailedError("the archive's answer has a part without an end of its header")
                    del buffer[: end + 4]
                    file, in_head = new_file(count), False
                    count += 1
                    continue
                end = buffer.find(delimiter)
                body = end if end >= 0 else max(0, len(buffer) - len(delimiter) + 1)
                if file is not None:
                    file.write(memoryview(buffer)[:body].tobytes())
                if end < 0:
                    del buffer[:body]
                    break
                del buffer[: end + len(delimiter)]
                in_head = True
                if file is not None:
                    file.close()
                    file = None
    finally:
        if file is not None:
            file.close()
    raise ArchiveFailedError("the archive's answer breaks off")


def joined(paths: Sequence[Path]) -> tuple[str, bytes]:
    """Return content type and body of a request that holds files."""
    # Random, so not in any of them.
    boundary = secrets.token_hex(24)
    parts: list[bytes] = []
    for path in paths:
        parts += [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), path.read_bytes(), b"\r\n"]
    return f"{KIND}; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])
