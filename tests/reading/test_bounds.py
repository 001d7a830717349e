"""Small files that claim, or inflate to, very much: refused in one line, and memory stays small meanwhile.

Each is read in a process of its own, which measures its largest resident size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing.seeds import CT, bytes_of, ct_dataset, nifti_bytes
from measured import MIB, read_measured
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")

# A fork of a process that has read a good file begins with 50 MiB, measured. What is packed may
# become 64 MiB before it is refused, and pydicom copies it; no bomb's content fits.
BOUND = 250 * MIB


def packed(head: bytes, mib: int) -> tuple[bytes, int, int]:
    """``head`` and so many MiB of zeros as a raw deflate stream, their CRC-32 and size.

    One MiB is packed and repeated: a flush forgets what was before.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros, crc = bytes(MIB), zlib.crc32(head)
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(mib):
        crc = zlib.crc32(zeros, crc)
    return begin + block * mib + packer.flush(), crc, len(head) + mib * MIB


def deflated(mib: int) -> bytes:
    """A deflated DICOM file whose pixels are so many MiB of zeros."""
    ds = ct_dataset()
    del ds.PixelData
    head = bytes_of(ds)
    meta = 144 + int.from_bytes(head[140:144], "little")
    body, _, _ = packed(head[meta:] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", mib * MIB), mib)
    return _with_syntax(head[:meta], DeflatedExplicitVRLittleEndian) + body


def _with_syntax(meta: bytes, syntax: str) -> bytes:
    """File meta with another TransferSyntaxUID; the group length, four bytes at 140, fits again."""
    at = meta.index(b"\x02\x00\x10\x00UI")
    size = int.from_bytes(meta[at + 6 : at + 8], "little")
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    out = meta[: at + 6] + struct.pack("<H", len(uid)) + uid + meta[at + 8 + size :]
    return out[:140] + struct.pack("<I", len(out) - 144) + out[144:]


def rle(rows: int, columns: int, frames: int) -> bytes:
    """One short RLE frame below a header that claims a lot."""
    ds = ct_dataset()
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, frames
    # 128 zeros, twice.
    segment = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"
    ds.PixelData = encapsulate([segment])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return bytes_of(ds, RLELossless)


def npy(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(4096)


def png(side: int) -> bytes:
    """A PNG that claims side x side gray pixels, and holds a few zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def nifti(shape: tuple[int, int, int], mib: int) -> bytes:
    """A packed NIfTI file of that shape (int16), so many MiB of zeros behind its header."""
    header = bytearray(nifti_bytes()[:352])
    struct.pack_into("<4h", header, 40, 3, *shape)
    body, crc, size = packed(bytes(header), mib)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + body + struct.pack("<2I", crc, size)


def zip_bomb(mib: int, stated: int | None = None) -> bytes:
    """A member that begins as a CT image and goes on with zeros; its stated size may be another."""
    ds = ct_dataset()
    del ds.PixelData
    body, crc, size = packed(bytes_of(ds) + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", mib * MIB), mib)
    name, deflate = b"a.dcm", 8
    member = b"PK\3\4" + struct.pack("<5H3I2H", 20, 0, deflate, 0, 0, crc, len(body), size, len(name), 0) + name + body
    entry = (20, 20, 0, deflate, 0, 0, crc, len(body), size if stated is None else stated, len(name), 0, 0, 0, 0, 0, 0)
    directory = b"PK\1\2" + struct.pack("<6H3I5H2I", *entry) + name
    return member + directory + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 1, 1, len(directory), len(member), 0)


def long_pixels() -> bytes:
    """PixelData that claims almost 4 GiB, in a file of a few kilobytes."""
    data = bytes_of(ct_dataset())
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    return data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 : -100]


def long_text() -> bytes:
    """A text of the header that claims almost 4 GiB."""
    data = bytes_of(ct_dataset())
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + b"\x55\x00\x10\x00UT\0\0\xf0\xff\xff\xff" + data[at:]


def nested(levels: int) -> bytes:
    """Sequences of undefined length within each other, before the pixels."""
    data = bytes_of(ct_dataset())
    at = data.index(b"\x08\x00\x18\x22SQ")
    opened = b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return data[:at] + opened * levels


# An empty one; pydicom makes a Dataset of over a kilobyte of it.
ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"


def open_items(count: int) -> bytes:
    """A sequence of undefined length, whose items are made when the file is parsed."""
    data = bytes_of(ct_dataset())
    at = data.index(b"\x08\x00\x18\x22SQ")
    return data[:at] + b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff" + ITEM * count + data[at:]


def frame_items(count: int) -> bytes:
    """Functional groups of a stated length, whose items are made when they are asked for."""
    data = bytes_of(ct_dataset())
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", 8 * count) + ITEM * count + data[at:]


def deflated_items(count: int) -> bytes:
    data = frame_items(count)
    meta = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return _with_syntax(data[:meta], DeflatedExplicitVRLittleEndian) + packer.compress(data[meta:]) + packer.flush()


def many_frames(count: int) -> bytes:
    """Very many frames of the least size, packed."""
    ds = ct_dataset()
    ds.Rows = ds.Columns = 16
    ds.NumberOfFrames, ds.PixelData = count, bytes(512 * count)
    return bytes_of(ds, DeflatedExplicitVRLittleEndian)


def stream(syntax: str, start: bytes, at: int, size: bytes) -> bytes:
    """A compressed CT image, whose stream then claims another size than Rows and Columns do."""
    ds = ct_dataset()
    ds.compress(syntax, generate_instance_uid=False)
    data = bytes_of(ds, syntax)
    at += data.index(start)
    return data[:at] + size + data[at + len(size) :]


def tiff(side: int) -> bytes:
    """A TIFF that claims side x side pixels of 16 bits, and holds a thousand bytes."""
    entries = [(256, 4, side), (257, 4, side), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, side)]
    entries += [(279, 4, 2**31 - 1)]
    body = b"".join(struct.pack("<2H2I", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(1000)


def dicomdir(mib: int) -> bytes:
    """A deflated file that calls itself a DICOMDIR."""
    return deflated(mib).replace(f"{CT}\0".encode(), b"1.2.840.10008.1.3.10".ljust(len(CT) + 1, b"\0"), 1)


# Name -> file name, how it is made, what its error says.
BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "deflated, 700 MiB": ("a.dcm", lambda: deflated(700), "inflates to more than the limit"),
    "deflated, 500 MiB": ("a.dcm", lambda: deflated(500), "InputError"),
    "RLE 30000x30000": ("a.dcm", lambda: rle(30000, 30000, 1), "30000x30000"),
    "RLE 4096x4096x10000": ("a.dcm", lambda: rle(4096, 4096, 10000), "outside the limits"),
    "RLE 4096x4096x16": ("a.dcm", lambda: rle(4096, 4096, 16), "InputError"),
    "npy of 8 GiB": ("a.npy", lambda: npy("(32768, 65536)"), "InputError"),
    "npy of 10**18": ("a.npy", lambda: npy("(1000000000, 1000000000)"), "InputError"),
    "PNG 60000x60000": ("a.png", lambda: png(60000), "InputError"),
    "PNG 12000x12000": ("a.png", lambda: png(12000), "12000x12000"),
    "NIfTI, 1 GiB claimed and there": ("a.nii.gz", lambda: nifti((1024, 1024, 512), 1024), "InputError"),
    "NIfTI, 2 GiB claimed, nothing there": ("a.nii.gz", lambda: nifti((1024, 1024, 1023), 1), "InputError"),
    "NIfTI, 32767 cubed": ("a.nii.gz", lambda: nifti((32767, 32767, 32767), 1), "InputError"),
    "zip member, 700 MiB": ("a.zip", lambda: zip_bomb(700), "limit"),
    "zip member, 700 MiB, 1 kB stated": ("a.zip", lambda: zip_bomb(700, 1000), "InputError"),
    "zip member, 500 MiB": ("a.zip", lambda: zip_bomb(500), "InputError"),
    "PixelData of 4 GiB": ("a.dcm", long_pixels, "InputError"),
    "a text of 4 GiB": ("a.dcm", long_text, "InputError"),
    "250,000 items": ("a.dcm", lambda: open_items(250_000), "over 100000 items"),
    "250,000 items of frames": ("a.dcm", lambda: frame_items(250_000), "over 100000 items"),
    "7,000,000 items, deflated": ("a.dcm", lambda: deflated_items(7_000_000), "over 100000 items"),
    "100,000 frames of 16x16": ("a.dcm", lambda: many_frames(100_000), "NumberOfFrames"),
    "JPEG-LS stream of 65535x65535": (
        "a.dcm",
        lambda: stream(JPEGLSLossless, b"\xff\xf7", 5, b"\xff" * 4),
        "truncated pixels",
    ),
    "JPEG 2000 stream of 60000x60000": (
        "a.dcm",
        lambda: stream(JPEG2000Lossless, b"\xff\x4f\xff\x51", 8, b"\0\0\xea\x60" * 2),
        "truncated pixels",
    ),
    "TIFF 4096x4096": ("a.tif", lambda: tiff(4096), "InputError"),
    "TIFF 60000x60000": ("a.tif", lambda: tiff(60000), "InputError"),
    "NIfTI, 2 GiB claimed, not packed": (
        "a.nii",
        lambda: zlib.decompress(nifti((1024, 1024, 1023), 1), 47),
        "InputError",
    ),
    "deflated DICOMDIR, 700 MiB": ("DICOMDIR", lambda: dicomdir(700), "inflates to more than the limit"),
    "10,000 nested sequences": ("a.dcm", lambda: nested(10_000), "InputError"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path: Path, name: str) -> None:
    file, make, words = BOMBS[name]
    data = make()
    # A bomb is small, else it is just a large file.
    assert len(data) < 2 * MIB
    (tmp_path / file).write_bytes(data)
    (found,) = read_measured([tmp_path / file], tmp_path)
    assert "Error: " in found.said and words in found.said, found
    assert found.peak < BOUND, found


def test_small_nifti_with_a_long_tail(tmp_path: Path) -> None:
    """What lies behind the voxels is not inflated."""
    (tmp_path / "a.nii.gz").write_bytes(nifti((32, 32, 2), 700))
    (found,) = read_measured([tmp_path / "a.nii.gz"], tmp_path)
    assert found.said == "read 2" and found.peak < BOUND, found
