"""Small files that are valid and expand a thousandfold: each is within a file's limits, and their sum is bounded."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing.seeds import bytes_of, ct_dataset
from measured import MIB, read_measured
from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from lsms_rt.reading.limits import FREE_INFLATION, FREE_PIXELS, pixel_limit
from lsms_rt.reading.load import load_slices

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="VmHWM is Linux's")

SIDE = 1024
# Pixels of 2 bytes in a file, and files of an input, that are free.
FRAMES = FREE_INFLATION // (2 * SIDE * SIDE)
FILES = FREE_PIXELS // (FRAMES * SIDE * SIDE)
# 2**26 pixels take 256 MiB as HU; those of the next file are in memory as they were packed, unpacked, and copied.
BOUND = 700 * MIB


def constant(syntax: str) -> bytes:
    """One compressed frame of zeros."""
    ds = ct_dataset()
    ds.Rows, ds.Columns, ds.PixelData = SIDE, SIDE, bytes(2 * SIDE * SIDE)
    ds.compress(syntax, generate_instance_uid=False)
    return next(generate_frames(ds.PixelData, number_of_frames=1))


def file_of(syntax: str, frame: bytes, number: int, frames: int = FRAMES) -> bytes:
    """A file of equal frames, at places of its own."""
    ds = ct_dataset(number)
    ds.Rows, ds.Columns, ds.NumberOfFrames = SIDE, SIDE, frames
    ds.PixelData = encapsulate([frame] * frames)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return bytes_of(ds, syntax)


def deflated_file(number: int) -> bytes:
    ds = ct_dataset(number)
    ds.Rows, ds.Columns, ds.NumberOfFrames = SIDE, SIDE, FRAMES - 1
    ds.PixelData = bytes(2 * SIDE * SIDE * (FRAMES - 1))
    return bytes_of(ds, DeflatedExplicitVRLittleEndian)


def zip_of(path: Path, members: list[bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, data in enumerate(members):
            archive.writestr(f"{n:03d}", data)
    return path


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


# Where the frames are: in one file, in one file too many of them, in a folder, in an archive.
PLACES = {
    JPEG2000Lossless: ("one", "over", "archive"),
    JPEGLSLossless: ("over", "folder"),
    RLELossless: ("one", "archive"),
    DeflatedExplicitVRLittleEndian: ("archive",),
}


@pytest.mark.slow
@pytest.mark.parametrize("syntax", PLACES)
def test_constant_frames(tmp_path: Path, syntax: str) -> None:
    pytest.importorskip("pylibjpeg")
    pytest.importorskip("jpeg_ls")
    places = PLACES[syntax]
    if syntax == DeflatedExplicitVRLittleEndian:
        files = [deflated_file(n) for n in range(FILES + 1)]
    else:
        frame = constant(syntax)
        files = [file_of(syntax, frame, n) for n in range(FILES + 1)]
        written(tmp_path / "over", file_of(syntax, frame, 0, FRAMES + 1))
    written(tmp_path / "one", files[0])
    for n, data in enumerate(files):
        written(tmp_path / "folder" / f"{n}", data)
    zip_of(tmp_path / "archive.zip", files)
    paths = {"archive": tmp_path / "archive.zip"}
    found = read_measured([paths.get(place, tmp_path / place) for place in places], tmp_path)
    # In one file, all frames are at one place, which is refused after they were decoded.
    words = {"one": "duplicate positions", "over": "more than a CT image compresses"}
    for place, one in zip(places, found, strict=True):
        assert words.get(place, f"over the limit of {FREE_PIXELS}, which CT images never are") in one.said, one
        assert one.peak < BOUND, one


ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"


def with_items(number: int, count: int) -> bytes:
    """Empty items in a sequence that nobody needs and in the functional groups."""
    ds = ct_dataset(number)
    ds.Rows, ds.Columns, ds.PixelData = 16, 16, bytes(512)
    data = bytes_of(ds)
    at = data.index(b"\x08\x00\x18\x22SQ")
    data = (
        data[:at] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + ITEM * count + b"\xfe\xff\xdd\xe0\0\0\0\0" + data[at:]
    )
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", 8 * count) + ITEM * count + data[at:]


def with_long_uid(number: int) -> bytes:
    """A UID of 20 MB, deflated."""
    ds = ct_dataset(number)
    ds.add_new("SOPInstanceUID", "UT", "1" * 20_000_000)
    return bytes_of(ds, DeflatedExplicitVRLittleEndian)


def with_long_names(number: int) -> bytes:
    """Values as long as is allowed, in all attributes of text that are kept."""
    ds = ct_dataset(number)
    for name in ("PatientName", "PatientID", "StudyDescription", "SeriesDescription", "ReferringPhysicianName"):
        ds.add(DataElement(name, dictionary_VR(name), "x" * 1024, validation_mode=config.IGNORE))
    ds.Rows, ds.Columns, ds.PixelData = 16, 16, bytes(512)
    return bytes_of(ds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "count", "said", "bound"),
    [
        # 1.3 kB an item: all of them, kept, would take 120 MiB, and the process itself takes 70
        (lambda n: with_items(n, 8_000), 6, "read 6", 140 * MIB),
        (with_long_uid, 2, "SOPInstanceUID is a sequence, or longer than 1024 bytes", 200 * MIB),
        (with_long_names, 100, "read 100", 200 * MIB),
    ],
    ids=["items", "UID", "names"],
)
def test_headers(tmp_path: Path, make: Callable[[int], bytes], count: int, said: str, bound: int) -> None:
    files = [make(n) for n in range(count)]
    (found,) = read_measured([zip_of(tmp_path / "a.zip", files)], tmp_path)
    assert (tmp_path / "a.zip").stat().st_size < MIB
    assert said in found.said and found.peak < bound, found


def test_a_series_of_real_sizes_is_far_from_the_limits(tmp_path: Path) -> None:
    """Some slices of nothing but air among others, and a single one."""
    ds = ct_dataset()
    frames = [np.full((512, 512), 24, np.uint16), np.random.default_rng(0).integers(0, 2000, (512, 512), np.uint16)]
    paths = []
    for n, frame in enumerate(frames * 4):
        ds = ct_dataset(n)
        ds.Rows, ds.Columns, ds.PixelData = 512, 512, frame.tobytes()
        paths.append(written(tmp_path / "series" / str(n), bytes_of(ds, DeflatedExplicitVRLittleEndian)))
    assert len(load_slices(tmp_path / "series")) == 8 and len(load_slices(paths[0])) == 1


def test_a_large_gzip_of_an_ordinary_volume_is_not_a_bomb() -> None:
    """512x512x1200 of int16 in 250 MB: over the limit of one DICOM file when inflated, and an ordinary CT."""
    assert pixel_limit(250 * 10**6) > 512 * 512 * 1200 > pixel_limit(10**6)
