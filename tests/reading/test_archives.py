"""Series in ZIP archives: read like folders, in memory, within bounds."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import as_bytes, dataset, series, shown_names
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lsms_rt.errors import InputError
from lsms_rt.reading import budget, limits
from lsms_rt.reading.dicom import archive as archive_module
from lsms_rt.reading.dicom.series import read_archive
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slice, load_slices

# Peak memory of a process that refuses a bomb; 100 MB were measured.
PEAK_MB = 200


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def members_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, method: int, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "s", [5, -5, 10, 0])
    series(tmp_path / "s" / "A", [15])
    (tmp_path / "s" / "notes.txt").write_text("hello")
    (tmp_path / "s" / ".hidden").write_text("hello")
    packed = members_of(tmp_path / "s") | {"__MACOSX/._0.dcm": b"x", "empty/": b""}
    from_folder = load_slices(tmp_path / "s")
    from_archive = load_slices(pack(tmp_path / "s.ZIP", packed, method))
    assert [ct.position_mm for ct in from_archive] == [-5, 0, 5, 10, 15]
    for a, b in zip(from_folder, from_archive, strict=True):
        np.testing.assert_array_equal(a.hu, b.hu)
        assert a.source.replace("file", "member") == b.source and a.sop_instance_uid == b.sop_instance_uid
    # A/0.dcm, after the digits and before notes.txt.
    assert from_archive[-1].source == "member 5 of 6"
    assert [r.message for r in caplog.records] == 2 * [
        "skipped 1 files that are not DICOM images and 0 that are not CT slices"
    ]
    with shown_names():
        assert load_slices(tmp_path / "s.ZIP")[-1].source == "0.dcm"


def test_an_archive_has_series_copies_and_damage_like_a_folder(tmp_path: Path) -> None:
    series(tmp_path / "s", [0, 1, 2])
    series(tmp_path / "s", [0, 1], "b", SeriesNumber=7, SeriesInstanceUID="1.2.9")
    packed = members_of(tmp_path / "s")
    path = pack(tmp_path / "s.zip", packed)
    with pytest.raises(InputError, match=r"^the archive: 2 series.*3 \(3 slices 20x24\); 7 \(2 slices 20x24\)"):
        load_slices(path)
    assert len(load_slices(path, series=7)) == 2
    with pytest.raises(InputError, match="^the archive: 2 series"):
        load_slice(path)
    packed |= {"1.dcm": packed["1.dcm"][:-100], "2 copy.dcm": packed["2.dcm"]}
    told: list[str] = []
    slices = read_archive(pack(path, packed), "3", left_out=LeftOut(damaged=told))
    assert [len(ct.notes) for ct in slices] == [0, 1] and len(told) == 1
    assert told[0].startswith("member 2 of 6: damaged or truncated pixels")
    with pytest.raises(InputError, match="^member 2 of 6: .*--names shows file names"):
        read_archive(path, 3)


def test_paths_in_an_archive_mean_nothing(tmp_path: Path) -> None:
    names = ("/etc/a", "../../b", "C:\\c", "d", "./e//f")
    inside = {name: as_bytes(dataset(ImagePositionPatient=[0, 0, n])) for n, name in enumerate(names)}
    (tmp_path / "place").mkdir()
    slices = load_slices(pack(tmp_path / "place" / "s.zip", inside))
    assert len(slices) == 5
    # Nothing was written.
    assert [p.name for p in tmp_path.rglob("*")] == ["place", "s.zip"]


def test_members_of_one_name_are_all_read(tmp_path: Path) -> None:
    names = ("aaa", "aab", "aac")
    inside = {name: as_bytes(dataset(ImagePositionPatient=[0, 0, z])) for z, name in enumerate(names)}
    path = pack(tmp_path / "s.zip", inside)
    path.write_bytes(path.read_bytes().replace(b"aab", b"aaa").replace(b"aac", b"aaa"))
    assert [ct.position_mm for ct in load_slices(tmp_path / "s.zip")] == [0, 1, 2]


def test_archives_in_archives_are_not_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "s", [0])
    inner = pack(tmp_path / "inner.zip", {"b": as_bytes(dataset(ImagePositionPatient=[0, 0, 50]))}).read_bytes()
    assert len(load_slices(pack(tmp_path / "s.zip", members_of(tmp_path / "s") | {"x.zip": inner}))) == 1
    assert "skipped 1 files that are not DICOM" in caplog.text
    with pytest.raises(InputError, match="^the archive: no CT slice in 1 files; give"):
        load_slices(pack(tmp_path / "s.zip", {"x.zip": inner}))


def flag(path: Path, change: Callable[[bytearray, int], None]) -> None:
    """Change every entry of the archive's directory; `change` gets the file and where the entry begins."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        change(data, at)
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.zip", {"Doe": as_bytes(dataset())})

    def encrypt(data: bytearray, at: int) -> None:
        data[at + 8] |= 1

    flag(path, encrypt)
    with pytest.raises(InputError, match="^member 1 of 1: encrypted; .*password"):
        load_slices(path)
    told: list[str] = []
    with pytest.raises(InputError, match="no CT slice in 1 files .the last: member 1 of 1: encrypted"):
        load_slices(path, left_out=LeftOut(damaged=told))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_methods_that_cannot_be_bounded_are_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(InputError, match=f"^member 1 of 1: compression method {method} is not supported"):
        load_slices(pack(tmp_path / "s.zip", {"a": as_bytes(dataset())}, method))


def test_damaged_archives(tmp_path: Path) -> None:
    whole = pack(tmp_path / "Doe.zip", {"Doe": as_bytes(dataset())}).read_bytes()
    path = tmp_path / "Doe.zip"
    for data in (b"", b"PK\x03\x04 nothing", whole[:-30], whole[: len(whole) // 2], b"\0" * 1000):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"^the archive: not a readable ZIP archive .*create it again.*$"):
            load_slices(path)
    rng = np.random.default_rng(0)
    # Flipped bytes lead to slices or to one of our errors.
    for _ in range(60):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(InputError):
            load_slices(path)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(changed))
    with pytest.raises(InputError, match=r"^member 1 of 1: damaged in the archive \((error|BadZipFile)\)"):
        load_slices(path)


def test_limits_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = dataset(np.zeros((512, 512), np.uint16))
    path = pack(tmp_path / "s.zip", {"a": as_bytes(zeros), "b": b"x", "c": b"x"})

    def refused(module: Any, name: str, value: int, words: str) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            with pytest.raises(InputError, match=words):
                load_slices(path, left_out=None)

    assert len(load_slices(path)) == 1
    refused(limits, "MAX_FILES", 2, "^the archive: 3 members, over the limit of 2")
    refused(limits, "MAX_FILE_BYTES", 2**19, "^member 1 of 3: 1 MiB is over the limit")
    refused(archive_module, "MAX_DIRECTORY_BYTES", 100, "^the archive: its directory is over")
    refused(budget, "MAX_INFLATED_BYTES", 2**19, "^the archive: inflates to more than the limit")
    # The whole archive is refused, whoever listens.
    with monkeypatch.context() as changed:
        changed.setattr(budget, "MAX_INFLATED_BYTES", 2**19)
        with pytest.raises(InputError, match="^the archive: inflates to more than"):
            load_slices(path, left_out=LeftOut())
    ds = dataset()
    ds.add_new(0x00091001, "OB", bytes(300_000))
    pack(path, {"a": as_bytes(ds)})
    refused(archive_module, "MAX_HEADER_BYTES", 200_000, "^member 1 of 1: inflates to more than the limit")


def test_a_header_is_inflated_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (512, 512), np.uint16)
    inside = {"a": as_bytes(dataset(noise)), "b": as_bytes(dataset(noise, SeriesNumber=9, SeriesInstanceUID="1.9"))}
    path = pack(tmp_path / "s.zip", inside)
    # One slice, and the heads of two.
    monkeypatch.setattr(budget, "MAX_INFLATED_BYTES", 2**19 + 5 * 2**14)
    assert len(load_slices(path, series=9)) == 1


def test_stated_sizes_are_not_believed(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.zip", {"a": as_bytes(dataset())})

    def smaller(data: bytearray, at: int) -> None:
        data[at + 24 : at + 28] = struct.pack("<I", 1000)

    flag(path, smaller)
    with pytest.raises(InputError, match="^member 1 of 1: "):
        load_slices(path)

    def larger(data: bytearray, at: int) -> None:
        data[at + 24 : at + 28] = struct.pack("<I", 2**31)

    flag(path, larger)
    with pytest.raises(InputError, match="^member 1 of 1: 2048 MiB is over the limit of 512 MiB"):
        load_slices(path)


def gibibyte(path: Path, head: bytes, stated: int | None = None) -> None:
    """An archive of about 1 MB with a member of `head` and 1 GiB of zeros, in place of which it may state a size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        member.write(head)
        for _ in range(1024):
            member.write(bytes(2**20))
    if stated is not None:

        def lie(data: bytearray, at: int) -> None:
            data[at + 24 : at + 28] = struct.pack("<I", stated)

        flag(path, lie)


def header_before(element: bytes) -> bytes:
    """A CT image up to its pixels, then the beginning of an element."""
    data = as_bytes(dataset())
    return data[: data.index(b"\xe0\x7f\x10\x00")] + element


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["zeros", "DICOM", "a smaller size is stated", "nested", "directory"])
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.zip"
    if kind == "zeros":
        gibibyte(path, b"")
    elif kind == "nested":
        gibibyte(tmp_path / "inner", b"")
        pack(path, dict.fromkeys("abcdefghij", (tmp_path / "inner").read_bytes()))
    elif kind == "directory":
        # Two million entries.
        entries = (b"PK\x01\x02" + bytes(42)) * 2**21
        path.write_bytes(entries + b"PK\x05\x06" + struct.pack("<4xHHIIH", 2**16 - 1, 2**16 - 1, len(entries), 0, 0))
    else:
        # A private element of nearly 1 GiB.
        stated = 400 * 2**20 if kind != "DICOM" else None
        gibibyte(path, header_before(b"\x01\x7f\x01\x10OB\0\0" + struct.pack("<I", 2**30 - 2**16)), stated)
    assert path.stat().st_size < (1e8 if kind == "directory" else 2e6)
    code = (
        "import sys, lsms_rt.reading.load\n"
        "from lsms_rt.errors import InputError\n"
        "try:\n    lsms_rt.reading.load.load_slices(sys.argv[1])\n"
        "except InputError as error:\n    print(error)\n"
        # not getrusage, whose maximum a process takes over from the one that started it
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    said, peak = done.stdout.strip().split("\n")
    words = {
        "zeros": "member 1 of 1: empty, or nothing but zeros",
        "directory": "the archive: its directory is over the limit of 4 MiB",
        "nested": "the archive: no CT slice in 10 files",
        "DICOM": "member 1 of 1: 1024 MiB is over the limit of 512 MiB",
        "a smaller size is stated": "member 1 of 1: inflates to more than the limit of 32 MiB",
    }
    assert said.startswith(words[kind]) and int(peak) < PEAK_MB


def test_a_deflated_file_in_an_archive_is_counted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = dataset(np.zeros((512, 512), np.uint16))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = pack(tmp_path / "s.zip", {"a": as_bytes(ds)})
    assert len(load_slices(path)) == 1
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(InputError, match="^member 1 of 1: inflates to more than"):
        load_slices(path)
