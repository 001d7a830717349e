"""What a library compiled of an engine's files on this machine, kept in the user's cache folder for the next start."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from lsms_rt.machine.cache import cache_folder, read_private, write_private

log = logging.getLogger("lsms_rt")


class CompiledCache:
    """The compiled files of one engine on one kind of device.

    They are as good as code, so only files that this user wrote, and that have not changed since, are read.

    Args:
        digest: the engine's, "sha256:HEX".
        device: what the files are for: the names and versions of a processor and a library.
        what: the name of such a file in messages.
    """

    def __init__(self, digest: str, device: str, what: str) -> None:
        base, self._what = cache_folder(), what
        device = re.sub("[^a-z0-9]+", "-", device.lower())
        self.folder: Path | None = base / digest.removeprefix("sha256:")[:32] / device if base else None

    def read(self, name: str) -> bytes:
        """Return what was compiled of the file ``name``; empty if there is nothing, or if it cannot be used."""
        if self.folder is None:
            return b""
        try:
            return read_private(self.folder / f"{name}.cache", self._purpose(self.folder, name)) or b""
        except (OSError, ValueError) as error:
            log.warning("%s is compiled again, the cached one is not used: %s", self._what, _reason(error))
            return b""

    def write(self, name: str, data: bytes) -> None:
        """Keep what was compiled of the file ``name``; nothing if it is empty."""
        if self.folder is None or not data:
            return
        try:
            write_private(self.folder / f"{name}.cache", self._purpose(self.folder, name), data)
        except OSError as error:
            # A read-only device starts a little slower, but works.
            log.warning("%s is not cached, the next start will be slower: %s", self._what, _reason(error))

    @staticmethod
    def _purpose(folder: Path, name: str) -> str:
        """What a cached file is for: the engine, the kind of device, and the file."""
        return f"{folder.parent.name}/{folder.name}/{name}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
