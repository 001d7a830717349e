"""Damage that knows the format: valid containers around values that no honest writer writes."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from fuzzing.case import MARKER, Case

Change = Callable[[bytes, Random], bytes]

_NUMBERS = [struct.pack("<H", n) for n in (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 24, 32, 64, 4096, 30000, 32768, 65535)]
_NUMBERS += [b"", b"\1", b"\1\0\0", b"\1\0\2\0", b"\0" * 64, b"16"]
_TEXTS = [
    b"", b" ", b"0", b"-0", b"-1", b"1", b"2", b"3", b"nan", b"-inf", b"Infinity", b"1e400", b"1e-400", b"1e38",
    b"-1e38", b"0x10", b"1_000", b"4294967296", b"99999999999999999999", b"1.5", b"1,5", MARKER.encode(), b"\xff\xfe\0",
    b"\0", b"1\\2", b"1\\2\\3", b"1\\0\\0\\0\\1\\0", b"\\\\\\\\\\", b"1\\", b"9" * 5000, b"1\\" * 5000, b"\n\r\x1b",
    b"\xd9\xa3", b"1\\0\\0\\0\\-1\\0", b"0\\1\\0\\1\\0\\0", b"1e200\\1e200", b"1e-320\\1e-320", b"nan\\1",
    b"0\\0\\0\\0\\0\\0", b"1e308\\1e308\\1e308", b"1\\0\\0\\0\\1\\nan", b"0\\0\\1e300",
]  # fmt: skip
_SYNTAXES = [b"1.2.840.10008.1.2" + rest for rest in (
    b"", b".1", b".2", b".1.99", b".5", b".4.50", b".4.51", b".4.57", b".4.70", b".4.80", b".4.81", b".4.90", b".4.91",
    b".4.100", b".4.201", b".4.203", b".8.1", b".1.98",
)]  # fmt: skip
_CLASSES = [b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.2.1", b"1.2.840.10008.1.3.10", b"1.2"]
_CLASSES += [MARKER.encode(), b""]
_WORDS = [MARKER.encode(), b"", b"CT", b"MONOCHROME1", b"MONOCHROME2", b"RGB", b"HU", b"IMAGE", b"A\\B", b"\xff\xfe"]
_WORDS += [b"LOCALIZER", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 192", b"GB18030", b"latin1", b"idna", b"hex"]
_PATHS = [b"..\\..\\etc\\passwd", b"/etc/passwd", b"DATA", b"DATA\\IM0\0", b"C:\\x", b"~\\x", b"a" * 5000, b".", b"\\"]
_ITEMS = [b"", b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"junk"]
_ODD: dict[str, list[bytes]] = {
    **dict.fromkeys(
        ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
         "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit", "RecordInUseFlag"), _NUMBERS,
    ),
    **dict.fromkeys(
        ("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ImageOrientationPatient", "ImagePositionPatient",
         "PixelSpacing", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "SliceThickness"), _TEXTS,
    ),
    **dict.fromkeys(("SpecificCharacterSet", "Modality", "PhotometricInterpretation", "RescaleType", "ImageType",
                     "FrameType", "SeriesInstanceUID", "SOPInstanceUID", "PatientName", "DirectoryRecordType"), _WORDS),
    **dict.fromkeys(("SOPClassUID", "MediaStorageSOPClassUID", "ReferencedSOPClassUIDInFile"), _CLASSES),
    "TransferSyntaxUID": _SYNTAXES,
    "ReferencedFileID": _PATHS,
    **dict.fromkeys(
        ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelValueTransformationSequence",
         "PlanePositionSequence", "CTImageFrameTypeSequence", "ModalityLUTSequence", "DirectoryRecordSequence",
         "AnatomicRegionSequence"), _ITEMS,
    ),
    "PixelData": [b"", b"\0", b"\0" * 100, b"\xff" * 5000, b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 9],
    "ExtendedOffsetTable": [b"\xff" * 8, b"\0" * 8, b""],
    "ExtendedOffsetTableLengths": [b"\xff" * 8, b"\0" * 8, b""],
    "FloatPixelData": [b"\0" * 64],
    "LossyImageCompression": _WORDS,
}  # fmt: skip
_VRS = (
    "US",
    "SS",
    "UL",
    "IS",
    "DS",
    "UI",
    "CS",
    "LO",
    "PN",
    "SQ",
    "OB",
    "OW",
    "UN",
    "AT",
    "FD",
    "FL",
    "UT",
    "SV",
    "UV",
)
_USUAL = {"Rows": "US", "Columns": "US"} | dict.fromkeys(("PixelData", "FloatPixelData"), "OW")


def change_dicom(data: bytes, rng: Random) -> bytes:
    """Some tags, at the top or nested, get odd values, other types, or go; the file is then written anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(io.BytesIO(data), force=True)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                _change_dataset(ds, rng)
            buffer = io.BytesIO()
            ds.save_as(buffer, enforce_file_format=False)
            return buffer.getvalue()
        except Exception:
            # pydicom refuses to write some values; then only the bytes are damaged.
            return _odd_bytes(data, rng)


def _odd_bytes(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(max(1, min(len(data), 1500)))
    return data[:at] + rng.choice(_TEXTS + _NUMBERS) + data[at:]


def _change_dataset(ds: Dataset, rng: Random) -> None:
    inner = _nested(ds)
    where = ds if not inner or rng.random() < 0.6 else rng.choice(inner)
    here = [e.tag for e in where]
    what = rng.random()
    if what < 0.1 and here:
        del where[rng.choice(here)]
    elif what < 0.2:
        _set(ds, "AnatomicRegionSequence", _deep(rng.choice((2, 50, 400, 3000))), "SQ")
    elif what < 0.35 and here:
        tag = rng.choice(here)
        _set(where, tag, rng.choice(_TEXTS + _NUMBERS + _WORDS), rng.choice(_VRS))
    elif what < 0.45 and hasattr(ds, "file_meta") and len(ds.file_meta):
        ds.file_meta.TransferSyntaxUID = rng.choice(_SYNTAXES).decode()
    else:
        name = rng.choice([n for n in _ODD if n in where] or list(_ODD)) if rng.random() < 0.8 else rng.choice([*_ODD])
        vr = where[name].VR if name in where else _USUAL.get(name, "LO" if _ODD[name] is _WORDS else "UN")
        _set(where, name, rng.choice(_ODD[name]), vr)


def _nested(ds: Dataset) -> list[Dataset]:
    found = []
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                found += [item, *_nested(item)]
    return found


def _set(ds: Dataset, name: Any, value: bytes, vr: str) -> None:
    """Raw bytes, which pydicom writes as they are: it would refuse the value otherwise."""
    tag = Tag(name if not isinstance(name, str) else tag_for_keyword(name))
    if tag.group == 2 or (hasattr(ds, "file_meta") and tag in ds.file_meta):
        ds = ds.file_meta
    value += b" " * (len(value) % 2 and vr not in ("US", "SS"))
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def _deep(levels: int) -> bytes:
    """Sequences of undefined length within each other, explicit VR: the content of the outermost one."""
    opened = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff"
    return opened * levels


def change_encapsulation(data: bytes, rng: Random) -> bytes:
    """Lengths of pixel fragments, their delimiters and offset tables."""
    item, places, at = b"\xfe\xff\x00\xe0", [], data.find(b"\xe0\x7f\x10\x00")
    while at >= 0 and (at := data.find(item, at + 1)) >= 0:
        places.append(at)
    if not places:
        return change_dicom(data, rng)
    at = rng.choice(places)
    if rng.random() < 0.3:
        return data[:at] + rng.choice((b"", item + b"\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0")) + data[at:]
    length = struct.pack("<I", rng.choice((0, 1, 3, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 64, 2**20)))
    return data[: at + 4] + length + data[at + 8 :]


def change_inflated(data: bytes, rng: Random) -> bytes:
    """The data set of a deflated file is damaged below its compression, which would hide it otherwise."""
    at = _deflated_start(data)
    try:
        inner = zlib.decompress(data[at:], -zlib.MAX_WBITS)
    except zlib.error:
        return _odd_bytes(data, rng)
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(min(len(inner), 900))
        inner = inner[:place] + rng.choice((rng.randbytes(4), b"\xff\xff\xff\xff", b"")) + inner[place + 4 :]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[:at] + packer.compress(inner) + packer.flush()


def _deflated_start(data: bytes) -> int:
    """Behind the file meta, whose group length is its first element."""
    return 144 + int.from_bytes(data[140:144], "little") if len(data) > 144 else 0


_ZIP_FIELDS = {b"PK\3\4": (4, 6, 8, 10, 14, 18, 22, 26, 28), b"PK\1\2": (8, 10, 16, 20, 24, 28, 30, 32, 34, 42)}
_ZIP_FIELDS[b"PK\5\6"] = (4, 6, 8, 10, 12, 16, 20)


def change_zip(data: bytes, rng: Random) -> bytes:
    """A field of a header: version, flags (encrypted), method, sizes, lengths of names, offsets, counts."""
    places = [(at, m) for m in _ZIP_FIELDS for at in _all(data, m)]
    if not places:
        return data
    at, magic = rng.choice(places)
    at += rng.choice(_ZIP_FIELDS[magic])
    raw = rng.choice(
        (b"\0\0", b"\1\0", b"\x63\0", b"\x0c\0", b"\x0e\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x10")
    )
    return data[:at] + raw + data[at + len(raw) :]


def _all(data: bytes, what: bytes) -> list[int]:
    found, at = [], data.find(what)
    while at >= 0:
        found.append(at)
        at = data.find(what, at + 1)
    return found


_NAMES = (
    "../x.dcm",
    "/abs.dcm",
    "a" * 60000,
    "",
    "\0",
    "a\nb.dcm",
    "\u202e.dcm",
    "c:\\x",
    "x/",
    ".hidden",
    MARKER,
    "a//b",
)


def change_members(data: bytes, rng: Random) -> bytes:
    """Other names, a damaged member, one that is twice there, or a method that is unusual."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        # The file was damaged before.
        return change_zip(data, rng)
    n = rng.randrange(len(members))
    name, body = members[n]
    what = rng.random()
    if what < 0.3:
        members[n] = (rng.choice(_NAMES), body)
    elif what < 0.7 and body:
        members[n] = (name, rng.choice((change_dicom, _odd_bytes))(body, rng))
    elif what < 0.85:
        members.append((rng.choice((name, f"{MARKER}.zip")), rng.choice((body, data, b""))))
    else:
        del members[n]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names that occur twice raise warnings.
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w", rng.choice((0, 8, 8, 12, 14))) as archive:
            for name, body in members:
                info = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
                info.filename = name
                archive.writestr(info, body)
    return buffer.getvalue()


def change_png(data: bytes, rng: Random) -> bytes:
    """A chunk with another content and a checksum that fits; or one more, or its place exchanged."""
    chunks = _chunks(data)
    if not chunks:
        return data
    n = rng.randrange(len(chunks))
    kind, body = chunks[n]
    what = rng.random()
    if what < 0.5 and body:
        at = rng.randrange(len(body))
        body = body[:at] + rng.choice((b"\0", b"\xff\xff\xff\xff", b"\0\0\xea\x60", rng.randbytes(2))) + body[at + 1 :]
        chunks[n] = (kind, body)
    elif what < 0.7:
        extra = (
            b"PLTE",
            b"tRNS",
            b"iCCP",
            b"tEXt",
            b"zTXt",
            b"iTXt",
            b"acTL",
            b"fcTL",
            b"fdAT",
            b"gAMA",
            b"IHDR",
            b"eXIf",
        )
        chunks.insert(n, (rng.choice(extra), rng.randbytes(rng.choice((0, 1, 4, 13, 26)))))
    elif what < 0.85:
        chunks.append(chunks.pop(n))
    else:
        chunks.insert(n, chunks[n])
    out = data[:8]
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def change_tiff(data: bytes, rng: Random) -> bytes:
    """An entry of the first directory: tag, type, count or value."""
    if len(data) < 20 or data[:2] != b"II":
        return data
    start = struct.unpack_from("<I", data, 4)[0]
    if start + 2 > len(data):
        return data
    count = struct.unpack_from("<H", data, start)[0]
    at = start + 2 + 12 * rng.randrange(max(1, min(count, 30))) + rng.choice((0, 2, 4, 8))
    raw = struct.pack("<I", rng.choice((0, 1, 2, 3, 5, 7, 8, 32773, 34712, 50000, 65535, 2**31, 2**32 - 1, start)))
    return data[:at] + raw[: rng.choice((2, 4))] + data[at + 4 :]


def change_nifti(data: bytes, rng: Random) -> bytes:
    """Dimensions, type, where the voxels are, scaling, affine."""
    if len(data) < 348:
        return data
    shorts = struct.pack("<h", rng.choice((-1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 512, 768, 1024, 1536, 2304, 32767, -32768)))
    floats = struct.pack("<f", rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 1e-40, 3.0)))
    at, raw = rng.choice(
        ((rng.randrange(40, 56, 2), shorts), (rng.choice((70, 72, 252, 254)), shorts),
         (rng.randrange(76, 124, 4), floats),
         (rng.randrange(256, 328, 4), floats), (rng.randrange(256, 328, 4), floats), (0, rng.randbytes(4)),
         (344, rng.choice((b"ni1\0", b"n+2\0", b"\0\0\0\0"))))
    )  # fmt: skip
    return data[:at] + raw + data[at + len(raw) :]


def change_nifti_gz(data: bytes, rng: Random) -> bytes:
    """The same, below the compression."""
    try:
        inner = change_nifti(zlib.decompress(data, 16 + zlib.MAX_WBITS), rng)
    except zlib.error:
        return data
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(inner) + packer.flush()


_NPY_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }",
    "{'descr': '%s', 'fortran_order': False, 'shape': (32, 32), }",
    "{'descr': [('%s', '<f4')], 'fortran_order': False, 'shape': (32, 32), }",
    "{'descr': '<f4', 'fortran_order': %s, 'shape': (32, 32), }",
    "%s",
)
_NPY_VALUES = (
    "32, 32", "-1, 32", "65536, 65536", "10**9, 10**9", "32", "", "32, 32, 1", "'a', 'b'", "99999999999999999999, 1",
    "<f8", ">f4", "<f2", "<c8", "|O", "|b1", "<U9999", "|V4", "<M8[s]", "<i1", "<u8", "True", "1", "None", MARKER,
    "[" * 300, "(" * 3000, "-" * 3000 + "1", "9" * 5000, "\\x00", "{'a': 1}", "f4,f4", "1e400, 2", "()", "32.0, 32.0",
)  # fmt: skip


def change_npy(data: bytes, rng: Random) -> bytes:
    """Another header: shapes, types, and expressions that its parser is not to stumble over."""
    text = (rng.choice(_NPY_HEADERS) % rng.choice(_NPY_VALUES)).encode() + b"\n"
    version = rng.choice((1, 1, 1, 2, 3, 0, 255))
    length = struct.pack("<H" if version == 1 else "<I", len(text) % 2**16)
    return b"\x93NUMPY" + bytes((version, 0)) + length + text + data[128:]


def change_folder(case: Case, rng: Random) -> Case:
    """A file goes, is there twice, is empty, or is of another kind."""
    name = rng.choice(sorted(case.files))
    what, other = rng.randrange(4), f"{case.entry}/extra{rng.randrange(9)}"
    if what == 0:
        return case.without_file(name)
    if what == 1:
        return case.with_file(other, case.files[name])
    return case.with_file(name if what == 2 else other, rng.choice((b"", b"\0" * 200, b"PK\3\4", b"text")))


CHANGES: dict[str, tuple[Change, ...]] = {
    "dicom": (change_dicom, change_dicom, change_encapsulation, change_inflated),
    "zip": (change_zip, change_members),
    "npy": (change_npy,),
    "png8": (change_png,),
    "png16": (change_png,),
    "tiff": (change_tiff,),
    "nifti": (change_nifti,),
    "nifti_gz": (change_nifti_gz,),
}
