"""A file that may have been a slice is reported, whatever became of it; a file of another kind is counted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_dicom import as_bytes, dataset, series

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom import source as source_module
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices

LOST = "a link that cannot be followed"
BROKEN = "not DICOM, but it begins or is named like a slice; copy it again"


def loop(path: Path) -> None:
    path.symlink_to(path)


def outside(path: Path) -> None:
    other = path.parent.parent / "other"
    series(other, [20])
    path.symlink_to(other)


def to_pipe(path: Path) -> None:
    os.mkfifo(path.parent.parent / "pipe")
    path.symlink_to(path.parent.parent / "pipe")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("../annex/SHA256-1"), f"{LOST} (No such file or directory)"),
        (loop, f"{LOST} (Too many levels of symbolic links)"),
        (outside, "a link to a folder, which is not followed; give that folder, or copy it here"),
        (to_pipe, "a link to something that is no file"),
        (lambda path: path.write_bytes(b""), "empty, or nothing but zeros"),
    ],
)
def test_links_that_lead_to_no_file_are_reported(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    series(tmp_path / "s", [0, 5, 10])
    make(tmp_path / "s" / "3")
    told = LeftOut()
    assert len(load_slices(tmp_path / "s", left_out=told)) == 3
    assert len(told.damaged) == 1 and told.damaged[0].startswith(f"file 4 of 4: {said}")
    with pytest.raises(InputError, match="^file 4 of 4: "):
        load_slices(tmp_path / "s")


def test_a_link_to_a_slice_is_that_slice(tmp_path: Path) -> None:
    series(tmp_path / "other", [10])
    series(tmp_path / "s", [0, 5])
    (tmp_path / "s" / "0").symlink_to(tmp_path / "other" / "0.dcm")
    (tmp_path / "way").symlink_to(tmp_path / "s")
    slices = load_slices(tmp_path / "way")
    assert [(ct.source, ct.position_mm) for ct in slices] == [
        ("file 2 of 3", 0), ("file 3 of 3", 5), ("file 1 of 3", 10),
    ]  # fmt: skip


def test_a_slice_without_its_modality_is_reported(tmp_path: Path) -> None:
    series(tmp_path / "s", [0, 5, 10])
    series(tmp_path / "s", [15], "x", Modality="")
    told = LeftOut()
    assert len(load_slices(tmp_path / "s", left_out=told)) == 3
    assert told.not_ct == 0 and len(told.damaged) == 1
    assert told.damaged[0].startswith("file 4 of 4: a CT image without a Modality")


def with_preamble(data: bytes) -> bytes:
    return b"II*\0" + bytes(range(1, 125)) + data[128:]


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "a bit of DICM": lambda data: data[:128] + b"DICL" + data[132:],
    "all of DICM": lambda data: data[:128] + b"\0\1\2\3" + data[132:],
    "a link of git-lfs": lambda data: b"version https://git-lfs.github.com/spec/v1\n",
    "a page of a server": lambda data: b"<html>not found</html>",
    "another beginning": lambda data: os.urandom(200) + data[200:],
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_slice_whose_beginning_is_damaged_is_reported(tmp_path: Path, what: str) -> None:
    series(tmp_path / "s", [0, 5, 10])
    path = tmp_path / "s" / "2.dcm"
    path.write_bytes(BREAKS[what](path.read_bytes()))
    told = LeftOut()
    assert len(load_slices(tmp_path / "s", left_out=told)) == 2
    assert told == LeftOut(damaged=[f"file 3 of 3: {BROKEN}"])
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for file in sorted((tmp_path / "s").iterdir()):
            archive.write(file, file.name)
    told = LeftOut()
    assert len(load_slices(tmp_path / "s.zip", left_out=told)) == 2
    assert told == LeftOut(damaged=[f"member 3 of 3: {BROKEN}"])


@pytest.mark.parametrize("kind", ["zeros", "a preamble", "no preamble"])
def test_a_file_without_an_ending_is_known_by_its_neighbors(tmp_path: Path, kind: str) -> None:
    for n in range(3):
        data = as_bytes(dataset(ImagePositionPatient=[0, 0, 5 * n]))
        data = with_preamble(data) if kind == "a preamble" else data[132:] if kind == "no preamble" else data
        (tmp_path / str(n)).write_bytes(data)
    assert len(load_slices(tmp_path)) == 3
    broken = bytearray(data)
    broken[4 if kind == "no preamble" else 129] ^= 1
    (tmp_path / "2").write_bytes(broken)
    told = LeftOut()
    assert len(load_slices(tmp_path, left_out=told)) == 2
    assert told == LeftOut(damaged=[f"file 3 of 3: {BROKEN}"])


def test_other_files_and_objects_are_counted(tmp_path: Path) -> None:
    series(tmp_path, [0, 5, 10])
    series(tmp_path, [0], "mr", Modality="MR")
    for name in ("README.txt", "report.pdf", "a.json"):
        (tmp_path / name).write_bytes(b"%PDF-1.7 and so on" * 20)
    os.mkfifo(tmp_path / "pipe")
    told = LeftOut()
    assert len(load_slices(tmp_path, left_out=told)) == 3
    assert told == LeftOut(not_dicom=3, not_ct=1)


@pytest.mark.parametrize("name", [".hidden", "{}/empty"])
def test_a_walk_is_bounded_whatever_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    series(tmp_path, [0])
    for n in range(30):
        path = tmp_path / (name.format(n) if "{" in name else f"{name}{n}")
        path.mkdir(parents=True)
    assert len(load_slices(tmp_path)) == 1
    monkeypatch.setattr(source_module, "MAX_ENTRIES", 20)
    with pytest.raises(InputError, match="^the folder: over 20 files and folders, hidden ones included"):
        load_slices(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_without_permission_is_not_an_empty_one(tmp_path: Path) -> None:
    series(tmp_path / "s", [0])
    series(tmp_path / "s" / "t", [5])
    (tmp_path / "s" / "t").chmod(0o444)
    try:
        told = LeftOut()
        load_slices(tmp_path / "s", left_out=told)
        assert told.damaged == ["file 2 of 2: cannot be opened (Permission denied); check the path"]
        (tmp_path / "s" / "t").chmod(0)
        with pytest.raises(InputError, match="cannot be read .Permission denied"):
            load_slices(tmp_path / "s")
    finally:
        (tmp_path / "s" / "t").chmod(0o755)
