"""Images that were sent: files in a private folder, within bounds while they arrive, deleted when they are not used."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.concurrency import run_in_threadpool

from lsms_rt.reading.limits import MAX_FILE_BYTES, MAX_FILES
from lsms_rt.reading.stated import NOTHING, Stated

from .replies import bad
from .settings import MIB, Settings

# The first bytes of a file, where they stand, and the ending by which our readers know it.
MAGIC = (
    (b"DICM", 128, ".dcm"), (b"PK\x03\x04", 0, ".zip"), (b"\x1f\x8b", 0, ".nii.gz"), (b"n+1\x00", 344, ".nii"),
    (b"\x93NUMPY", 0, ".npy"), (b"\x89PNG", 0, ".png"),
)  # fmt: skip
WANTED = "DICOM, a ZIP of DICOM files, NIfTI, NPY or PNG"


@dataclass(eq=False)
class Upload:
    """An image that was sent.

    Attributes:
        id: by which requests name it.
        folder: holds its files in ``files/``, and what is made of it.
        size: bytes of its files.
        count: number of its files.
        about: what it is, once it was read.
        series: which of its series is read; None for the only one.
        stated: facts that it does not hold.
        used: time.monotonic() of its last use.
        busy: number of tasks that use it.
        deleted: whether it is to be deleted when no task uses it.
    """

    folder: Path
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    size: int = 0
    count: int = 0
    about: dict[str, Any] | None = None
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING
    used: float = field(default_factory=time.monotonic)
    busy: int = 0
    deleted: bool = False

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
    """All uploads, in a folder that only this user may read, which goes with the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.root = Path(tempfile.mkdtemp(prefix="lsms-rt-serve-"))
        self._kept: dict[str, Upload] = {}

    def create(self) -> Upload:
        """Make an empty upload.

        Raises:
            RequestError: as many are kept as may be.
        """
        if len(self._kept) >= self._settings.uploads:
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
        if upload.about is not None or upload.busy:
            raise bad("this image is complete; send another one with POST /images", 409)
        if upload.count >= MAX_FILES:
            raise bad(f"an image has at most {MAX_FILES} files; send one series only", 413)
        part = upload.folder / f"{uuid.uuid4().hex}.part"
        try:
            size, head = 0, b""
            with part.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    head += chunk[: max(0, 352 - len(head))]
                    self._check(upload, size)
                    await run_in_threadpool(file.write, chunk)
            ending = ending_of(head)
            if size == 0 or ending is None:
                raise bad(f"the file is {'empty' if size == 0 else 'of an unknown format'}; send {WANTED}", 415)
            part.rename(upload.folder / "files" / f"{upload.count:06d}{ending}")
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        upload.size += size
        upload.count += 1

    def _check(self, upload: Upload, size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise bad(f"the file is over the limit of {MAX_FILE_BYTES // MIB} MiB; send one series only", 413)
        total = sum(one.size for one in self._kept.values()) + size
        if total > self._settings.upload_bytes:
            limit = self._settings.upload_bytes // MIB
            raise bad(f"the images that are kept would exceed {limit} MiB; delete some (DELETE /images/ID)", 413)

    def delete(self, upload: Upload) -> None:
        """Delete an upload, and its files when no task uses them."""
        self._kept.pop(upload.id, None)
        upload.deleted = True
        if not upload.busy:
            shutil.rmtree(upload.folder, ignore_errors=True)

    @contextmanager
    def used(self, upload: Upload) -> Iterator[None]:
        """Keep the files of an upload while a task uses them."""
        upload.busy += 1
        try:
            yield
        finally:
            upload.busy -= 1
            upload.used = time.monotonic()
            if upload.deleted:
                self.delete(upload)

    def reap(self) -> None:
        """Delete uploads that were not used for the idle time."""
        now = time.monotonic()
        for upload in [u for u in self._kept.values() if not u.busy and now - u.used > self._settings.idle]:
            self.delete(upload)

    def close(self) -> None:
        """Delete everything."""
        self._kept.clear()
        shutil.rmtree(self.root, ignore_errors=True)
