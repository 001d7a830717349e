"""Images that were sent: files in a private folder, within bounds while they arrive, deleted when they are not used."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.concurrency import run_in_threadpool

from lsms_rt.reading.limits import MAX_FILE_BYTES, MAX_FILES
from lsms_rt.reading.stated import NOTHING, Stated

from .private_folder import PrivateFolder, sweep
from .replies import bad
from .settings import MIB, Settings

_log = logging.getLogger("lsms_rt")
# The first bytes of a file, where they stand, and the ending by which our readers know it.
MAGIC = (
    (b"DICM", 128, ".dcm"), (b"PK\x03\x04", 0, ".zip"), (b"\x1f\x8b", 0, ".nii.gz"), (b"n+1\x00", 344, ".nii"),
    (b"\x93NUMPY", 0, ".npy"), (b"\x89PNG", 0, ".png"),
)  # fmt: skip
# What an upload may be used for at a time; several jobs, and several files that arrive.
ADDING, READING, JOB, VIEW = "adding", "reading", "job", "view"
WANTED = "DICOM, a ZIP of DICOM files, NIfTI, NPY or PNG"


@dataclass(eq=False)
class Upload:
    """An image that was sent.

    Attributes:
        id: by which requests name it.
        folder: holds its files in ``files/``, and what is made of it.
        size: bytes of its files, with those that are arriving.
        count: number of its files.
        made: bytes of what was made of it, by folder.
        reading: folder of what was made of it when it was read last: the volume, and a folder per job.
        about: what it is, once it was read.
        series: which of its series is read; None for the only one.
        stated: facts that it does not hold.
        used: time.monotonic() of its last use.
        uses: what uses it now, and how often.
        deleted: whether it is to be deleted when nothing uses it.
    """

    folder: Path
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    size: int = 0
    count: int = 0
    made: dict[Path, int] = field(default_factory=dict)
    reading: Path | None = None
    about: dict[str, Any] | None = None
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING
    used: float = field(default_factory=time.monotonic)
    uses: Counter[str] = field(default_factory=Counter)
    deleted: bool = False

    @property
    def busy(self) -> bool:
        return self.uses.total() > 0

    @property
    def source(self) -> Path:
        """The file, or the folder of several."""
        files = self.folder / "files"
        return next(files.iterdir()) if self.count == 1 else files


def ending_of(head: bytes) -> str | None:
    """Return the ending of a file that begins with ``head`` (352 bytes); None for an unknown format."""
    known = next((ending for magic, at, ending in MAGIC if head[at : at + len(magic)] == magic), None)
    # DICOM without a preamble: an element of group 0002 or 0008, little endian.
    bare = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
    return ".dcm" if known is None and bare else known


class Uploads:
    """All uploads, in a folder that only this user may read, which goes with the server.

    Their state is changed on the event loop only; threads but read, write and delete files.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        if swept := sweep():
            _log.warning("deleted the files of %d servers that had been killed", swept)
        self._folder = PrivateFolder()
        self.root = self._folder.path
        self._kept: dict[str, Upload] = {}
        # Deleted, but their files are still there.
        self._leaving: set[Upload] = set()

    def create(self) -> Upload:
        """Make an empty upload.

        Raises:
            RequestError: as many are kept as may be.
        """
        if len(self._kept) + len(self._leaving) >= self._settings.uploads:
            raise bad("too many images are kept; delete some (DELETE /images/ID), or wait", 429, "QueueFullError")
        upload = Upload(folder=self.root / uuid.uuid4().hex)
        (upload.folder / "files").mkdir(parents=True)
        self._kept[upload.id] = upload
        return upload

    def get(self, id: str) -> Upload:
        """Return an upload, and note that it is used.

        Raises:
            RequestError: there is none of this id.
        """
        upload = self._kept.get(id)
        if upload is None:
            raise bad("there is no image of this id, or it was deleted; send it again with POST /images", 404)
        upload.used = time.monotonic()
        return upload

    async def add(self, upload: Upload, chunks: AsyncIterator[bytes]) -> None:
        """Add a file to an upload while it arrives.

        Raises:
            RequestError: it is too large, empty, or of an unknown format; nothing of it is kept.
        """
        self._check_open(upload)
        if upload.count + upload.uses[ADDING] >= MAX_FILES:
            raise bad(f"an image has at most {MAX_FILES} files; send one series only", 413)
        async with self.used(upload, ADDING):
            part = upload.folder / f"{uuid.uuid4().hex}.part"
            size = 0
            try:
                head = b""
                with part.open("wb") as file:
                    async for chunk in chunks:
                        self._check_open(upload)
                        self._check_room(size + len(chunk), len(chunk))
                        size += len(chunk)
                        upload.size += len(chunk)
                        head += chunk[: max(0, 352 - len(head))]
                        await run_in_threadpool(file.write, chunk)
                ending = ending_of(head)
                if size == 0 or ending is None:
                    raise bad(f"the file is {'empty' if size == 0 else 'of an unknown format'}; send {WANTED}", 415)
                # Nothing is awaited from here on, so that it stays open until the file is in its place.
                self._check_open(upload)
                part.rename(upload.folder / "files" / f"{upload.count:06d}{ending}")
            except BaseException:
                part.unlink(missing_ok=True)
                upload.size -= size
                raise
            upload.count += 1

    def _check_open(self, upload: Upload) -> None:
        if upload.deleted:
            raise bad("this image was deleted; send it again with POST /images", 404)
        if upload.about is not None or upload.uses[READING]:
            raise bad("this image is complete; send another one with POST /images", 409)

    def _check_room(self, size: int, more: int) -> None:
        if size > MAX_FILE_BYTES:
            raise bad(f"the file is over the limit of {MAX_FILE_BYTES // MIB} MiB; send one series only", 413)
        if self.sent + more > self._settings.upload_bytes:
            limit = self._settings.upload_bytes // MIB
            raise bad(f"the images that are kept would exceed {limit} MiB; delete some (DELETE /images/ID)", 413)

    @property
    def sent(self) -> int:
        """Bytes of the files that are kept, not yet deleted, or arriving."""
        return sum(one.size for one in (*self._kept.values(), *self._leaving))

    @property
    def made(self) -> int:
        """Bytes of volumes and results."""
        return sum(sum(one.made.values()) for one in (*self._kept.values(), *self._leaving))

    def check_not_full(self) -> None:
        """Raise RequestError if results fill as much as images may, so that nothing more is computed."""
        if self.made >= self._settings.upload_bytes:
            limit = self._settings.upload_bytes // MIB
            raise bad(f"the results that are kept exceed {limit} MiB; delete some images (DELETE /images/ID)", 413)

    async def note(self, upload: Upload, folder: Path) -> None:
        """Count the bytes of a folder of an upload that a task has filled."""
        size = await run_in_threadpool(_size, folder)
        # It may have been deleted meanwhile.
        if folder.is_dir():
            upload.made[folder] = size

    async def forget(self, upload: Upload | None, folder: Path) -> None:
        """Delete a folder of an upload."""
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if upload is not None:
            for one in [one for one in upload.made if one.is_relative_to(folder)]:
                del upload.made[one]

    async def delete(self, upload: Upload) -> None:
        """Delete an upload, and its files when nothing uses them."""
        self.withdraw(upload)
        if not upload.busy:
            # A request that ends early must not leave it half deleted.
            await asyncio.shield(self._remove(upload))

    def withdraw(self, upload: Upload) -> None:
        """Let no request find an upload that is being deleted."""
        self._kept.pop(upload.id, None)
        self._leaving.add(upload)
        upload.deleted = True

    async def _remove(self, upload: Upload) -> None:
        await asyncio.to_thread(shutil.rmtree, upload.folder, ignore_errors=True)
        self._leaving.discard(upload)

    def hold(self, upload: Upload, how: str) -> None:
        """Keep the files of an upload until ``release``."""
        upload.uses[how] += 1

    async def release(self, upload: Upload, how: str) -> None:
        """End a use; the last one deletes what is to be deleted."""
        upload.uses[how] -= 1
        upload.used = time.monotonic()
        if upload.deleted:
            await self.delete(upload)

    @asynccontextmanager
    async def used(self, upload: Upload, how: str) -> AsyncIterator[None]:
        """Keep the files of an upload while something uses them."""
        self.hold(upload, how)
        try:
            yield
        finally:
            await self.release(upload, how)

    def find(self, id: str | None) -> Upload | None:
        """Return an upload, if it is kept."""
        return None if id is None else self._kept.get(id)

    def idle(self) -> list[Upload]:
        """Return the uploads that were not used for the idle time."""
        now = time.monotonic()
        return [u for u in self._kept.values() if not u.busy and now - u.used > self._settings.idle]

    def close(self) -> None:
        """Delete everything."""
        self._kept.clear()
        self._folder.close()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
