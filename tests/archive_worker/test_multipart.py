"""Bodies of several parts, in chunks of any size."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsms_rt.archive_worker.multipart import boundary_of, joined, save_parts
from lsms_rt.archive_worker.retry import ArchiveFailedError

PARTS = [b"\r\n--not the boundary\r\n", b"", b"\r\n\r\n" * 9 + bytes(range(256))]


def saved(body: bytes, size: int, folder: Path) -> list[bytes]:
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    count = save_parts(chunks, b"B", lambda number: (folder / f"{number}").open("xb"))
    return [(folder / f"{number}").read_bytes() for number in range(count)]


def body(head: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"".join(b"--B\r\n" + head + b"\r\n" + part + b"\r\n" for part in PARTS) + b"--B--\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"preamble\r\n"])
@pytest.mark.parametrize("head", [b"", b"A: b\r\nC: d\r\n"])
def test_parts_are_as_they_were_sent(tmp_path: Path, size: int, before: bytes, head: bytes) -> None:
    assert saved(before + body(head) + b"epilogue", size, tmp_path) == PARTS


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("cut", [4, 20, 300])
def test_a_body_that_breaks_off_is_an_error(tmp_path: Path, size: int, cut: int) -> None:
    with pytest.raises(ArchiveFailedError, match="breaks off"):
        saved(body()[:-cut], size, tmp_path)


def test_what_is_sent_can_be_read_back(tmp_path: Path) -> None:
    paths = [tmp_path / f"in{number}" for number in range(3)]
    for path, part in zip(paths, PARTS, strict=True):
        path.write_bytes(part)
    kind, content = joined(paths)
    count = save_parts([content], boundary_of(kind), lambda number: (tmp_path / f"{number}").open("xb"))
    assert [(tmp_path / f"{number}").read_bytes() for number in range(count)] == PARTS


@pytest.mark.parametrize("kind", ["", "application/dicom", "multipart/related"])
def test_another_kind_of_body_is_an_error(kind: str) -> None:
    with pytest.raises(ArchiveFailedError, match="not a multipart body"):
        boundary_of(kind)
