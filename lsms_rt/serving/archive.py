"""A ZIP of files, made while it is sent: of any size, in little memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# bytes of a file that are read at once
CHUNK = 2**20


class _Sent(io.RawIOBase):
    """Takes what zipfile writes until it is sent; it cannot be gone back in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(folder: Path, names: Sequence[str]) -> Iterator[bytes]:
    """Yield a ZIP of some of a folder's files, in parts of about a MiB."""
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            # With the file's size, by which zipfile knows whether it needs ZIP64.
            entry = zipfile.ZipInfo.from_file(folder / name, name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    if part := sent.taken():
                        yield part
    yield sent.taken()
