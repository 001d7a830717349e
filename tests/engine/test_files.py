"""Files of an engine that are none: pipes, devices, endless files; and a cache that others could have written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lsms_rt.engine import files, open_directory
from lsms_rt.engine.files import read_file
from lsms_rt.engine.manifest import MANIFEST
from lsms_rt.errors import EngineError, EngineFileMissingError, EngineInvalidError
from lsms_rt.machine import cache
from lsms_rt.machine.cache import read_private, write_private

unix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a Unix")


def test_a_file_within_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(file)
    assert read_file(file, 1000) == read_file(tmp_path / "link", 1000) == b"x" * 1000
    with pytest.raises(EngineInvalidError, match="has 1000 bytes, over the limit"):
        read_file(file, 999)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "b", 1)
    with pytest.raises(EngineFileMissingError):
        read_file(tmp_path / "a\0b", 1)


@unix
@pytest.mark.parametrize("name", [MANIFEST, "image.onnx", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "proc"])
def test_endless_and_odd_files_end_in_an_error(demo_engine: Path, tmp_path: Path, name: str, kind: str) -> None:
    engine = Path(shutil.copytree(demo_engine, tmp_path / "a.engine"))
    file = engine / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else "/proc/self/maps")
    with pytest.raises(EngineError) as caught:
        open_directory(engine).read(name)
    assert str(caught.value).isprintable()


def test_a_large_manifest_is_not_parsed(demo_engine: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(demo_engine, tmp_path / "a.engine"))
    with (engine / MANIFEST).open("r+b") as file:
        file.truncate(2 << 20)
    with pytest.raises(EngineInvalidError, match="over the limit of 1 MiB"):
        open_directory(engine)


def test_a_file_that_grows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345678")
    status = os.stat(file)
    small = os.stat_result((*status[:6], 4, *status[7:10]))
    monkeypatch.setattr(files.os, "fstat", lambda _: small)
    with pytest.raises(EngineInvalidError, match="more bytes than its size says"):
        read_file(file, 100)


# ------------------------------------------------------------------------------------------------- the cache


def test_a_cached_file_is_for_one_purpose_and_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.cache"
    assert read_private(file, "text") is None
    write_private(file, "text", b"code")
    assert read_private(file, "text") == b"code"
    assert sorted(path.name for path in file.parent.iterdir()) == ["b.cache"]
    with pytest.raises(ValueError, match="has changed"):
        read_private(file, "image")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="has changed"):
        read_private(file, "text")


@unix
def test_a_cache_that_others_may_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a" / "b.cache"
    write_private(file, "text", b"code")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for path, mode in ((file, 0o620), (file, 0o602), (file.parent, 0o770), (file.parent, 0o707)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(PermissionError, match="other users may write"):
            read_private(file, "text")
        path.chmod(before)
    file.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="other users may write"):
        write_private(file, "text", b"more")
    file.parent.chmod(0o700)
    link = file.with_name("c.cache")
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic link|Too many levels"):
        read_private(link, "text")
    # Root may own it, since root can do anything; others may not.
    monkeypatch.setattr(cache.os, "geteuid", lambda: file.stat().st_uid + 1)
    if file.stat().st_uid:
        with pytest.raises(PermissionError, match="belongs to another user"):
            read_private(file, "text")
