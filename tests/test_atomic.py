"""Atomic writes of files and folders, and digests."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from lsms_rt.atomic import move_folder, unwritable, work_folder, write_text
from lsms_rt.digest import sha256, sha256_of_file, sha256_of_json
from lsms_rt.errors import InputError, LsmsError, MachineError


def test_a_text_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer"
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="no modes")
def test_a_private_file_is_its_owners_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("open to all")
    write_text(tmp_path / "a.txt", "a name", private=True)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o600
    assert (tmp_path / "a.txt").read_text() == "a name"


def test_a_folder_replaces_another_at_once(tmp_path: Path) -> None:
    target = tmp_path / "new" / "engine"
    for content in ("first", "second"):
        with work_folder(target) as work:
            (work / "finished").mkdir()
            (work / "finished" / "a").write_text(content)
            move_folder(work / "finished", target)
        assert (target / "a").read_text() == content
    with contextlib.suppress(ZeroDivisionError), work_folder(target) as work:
        (work / "finished").mkdir()
        _ = 1 / 0
    assert (target / "a").read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["engine"]


def test_a_folder_that_cannot_be_moved_is_moved_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "engine", Path.rename
    target.mkdir()
    (target / "a").write_text("first")

    def fails(path: Path, other: Path) -> Path:
        if path.name == "finished":
            raise OSError(errno.EIO, "the disk failed")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="the disk failed"), work_folder(target) as work:  # noqa: PT012
        (work / "finished").mkdir()
        move_folder(work / "finished", target)
    assert (target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_what_must_survive_a_loss_of_power_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if synced[-1]:
            raise OSError(errno.EINVAL, "this file system cannot")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "x")
    assert synced == []
    write_text(tmp_path / "a", "x", durable=True)
    assert synced == [False, True]


@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [
        (errno.ENOSPC, MachineError, "free some disk space"),
        (errno.EIO, MachineError, "choose another"),
        (errno.EROFS, InputError, "choose another"),
    ],
)
def test_a_failed_write_names_the_reason_and_the_fix_but_no_file(code: int, kind: type[LsmsError], fix: str) -> None:
    error = unwritable(OSError(code, "the reason", "/patients/doe.png"))
    assert type(error) is kind
    assert str(error).startswith(f"the output cannot be written (the reason); {fix}")
    assert "doe" not in str(error)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_file(tmp_path / "a") == sha256(b"abc")
    assert sha256_of_json({"a": 1, "b": [2]}) == sha256_of_json({"b": [2], "a": 1})
