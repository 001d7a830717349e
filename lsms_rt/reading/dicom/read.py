"""One DICOM file or dataset -> CT slices in Hounsfield units. What cannot be trusted is refused, not guessed.

Messages name the tag. Of its value they hold numbers, and words of the standard's own vocabulary: any other text may be
a patient's name in the wrong place.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.ct_slice import HU_MAX, HU_MIN, CtSlice, check_shape
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.privacy import label

from .compressed import check_streams
from .gdcm_process import pixel_array_by_gdcm
from .parse import open_dataset, quiet_pydicom
from .source import FileSource

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

MAX_PIXELS = 2**28  # Rows x Columns x NumberOfFrames; a few kilobytes of RLE can claim far more
MAX_FRAMES = 4096  # an object is made of each, and a packed one may have a single byte
MAX_HEADER_VALUE = 2**16  # bytes; what a Segmentation takes over are names and numbers
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)  # of all frames: places are read from them
MAX_TILT = 0.53  # rad between slice normal and body axis: gantries tilt by up to 30 degrees
MAX_TURN = 0.3  # rad of rotation within the slice

_CT = "1.2.840.10008.5.1.4.1.1.2"  # CT Image; .1 is Enhanced CT and .2 legacy converted
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
_DECODERS = {  # transfer syntax, or how it begins -> the package with a permissive licence that decodes it
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.8": "pyjpegls",
    "1.2.840.10008.1.2.4.9": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.20": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4": "python-gdcm",
}
# Which of pydicom's decoders, where it would take GDCM first: that ends the process over some damaged streams, and is
# left to what no other decodes, in a process of its own.
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.8": "pyjpegls",
    "1.2.840.10008.1.2.4.9": "pylibjpeg",
    "1.2.840.10008.1.2.4.20": "pylibjpeg",
    "1.2.840.10008.1.2.4": "gdcm",
}
_NEEDED = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PhotometricInterpretation",
)
# The standard's own terms: what messages may repeat.
_MODALITIES = frozenset(
    (
        "CR",
        "DX",
        "MG",
        "MR",
        "NM",
        "OT",
        "PR",
        "PT",
        "REG",
        "RF",
        "RTDOSE",
        "RTPLAN",
        "RTSTRUCT",
        "SEG",
        "SR",
        "US",
        "XA",
    )
)
_RESCALE_TYPES = frozenset(("OD", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"))
_COLOURS = frozenset(("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"))
_log = logging.getLogger("lsms_rt")


def read_file(path: str | Path) -> CtSlice:
    """The only slice of a DICOM file; InputError, or MissingDependencyError where a decoder is missing."""
    slices = read_slices(path)
    if len(slices) != 1:
        raise InputError(f"{slices[0].source}: holds {len(slices)} frames, one slice is needed; use read_slices")
    return slices[0]


def read_slices(path: str | Path) -> list[CtSlice]:
    """All slices of a DICOM file, in the file's order: one, or an Enhanced CT's frames."""
    source = FileSource(Path(path), label(path, "the file"))
    opened = open_dataset(source)
    return log_notes(slices_of(opened.ds, source.label, opened.notes))


def slice_from_dataset(ds: Dataset, source: str = "Dataset") -> CtSlice:
    """The only slice of a dataset; `source` names it in messages."""
    slices = slices_from_dataset(ds, source)
    if len(slices) != 1:
        raise InputError(f"{source}: holds {len(slices)} frames, one slice is needed; use read_slices")
    return slices[0]


def slices_from_dataset(ds: Dataset, source: str = "Dataset") -> list[CtSlice]:
    """All slices of a dataset, in its order; what had to be assumed is logged."""
    return log_notes(slices_of(ds, source))


def log_notes(slices: list[CtSlice]) -> list[CtSlice]:
    """Log each distinct note once, with the number of slices it is about; returns its argument."""
    for note, count in Counter(note for ct in slices for note in ct.notes).items():
        _log.warning("%s (%d of %d slices)", note, count, len(slices))
    return slices


def known(value: object, vocabulary: frozenset[str], otherwise: str) -> str:
    """The value for a message, where it is a word of the standard's; text of any other kind is not repeated."""
    if value is None or value == "":
        return "absent"
    return str(value) if isinstance(value, str) and value in vocabulary else otherwise


def _uid_name(uid: object, otherwise: str) -> str:
    """What the standard calls a UID. One that it does not know may identify a patient."""
    name = getattr(uid, "name", None)
    return "absent" if not uid else str(name) if name and name != uid else otherwise


def is_ct_class(uid: object, *, absent: bool = False) -> bool:
    """Whether a SOPClassUID is one of CT images; `absent` is the answer where there is none."""
    return uid in (_CT, _CT + ".1", _CT + ".2") if uid else absent


def refuse_unless_ct(ds: Dataset, source: str) -> None:
    """InputError unless this is an image of a CT class that is not a localizer."""
    modality, sop_class = ds.get("Modality"), ds.get("SOPClassUID")
    if modality != "CT":
        what = known(modality, _MODALITIES, "another")
        raise InputError(f"{source}: Modality is {what}, not CT; give a CT image")
    if not is_ct_class(sop_class):
        what = _uid_name(sop_class, "unknown")
        raise InputError(f"{source}: SOP class is {what}, not a CT image class; give the original CT image")
    types = [ds.get("ImageType")]
    shared, per_frame = (ds.get(f"{kind}FunctionalGroupsSequence") or [] for kind in ("Shared", "PerFrame"))
    for group in (*shared, *per_frame):
        types += [item.get("FrameType") for item in group.get("CTImageFrameTypeSequence") or []]
    if any("LOCALIZER" in ([t] if isinstance(t, str) else list(t or [])) for t in types):
        raise InputError(f"{source}: a localizer (scout view), not an axial slice; give the axial series")


def slices_of(ds: Dataset, source: str, notes: tuple[str, ...] = ()) -> list[CtSlice]:
    """`slices_from_dataset` without the logging; `notes` are what was assumed before."""
    with quiet_pydicom():
        try:
            refuse_unless_ct(ds, source)
            raw = _raw_frames(ds, source)
            header = _without_pixels(ds)
            return [_slice(ds, n, raw[n], source, header, notes) for n in range(len(raw))]
        except (LsmsError, MemoryError):
            raise
        except Exception as error:  # e.g. a tag whose bytes do not convert to its type
            kind = type(error).__name__
            raise InputError(f"{source}: malformed DICOM header ({kind}); export the image again") from error


def _without_pixels(ds: Dataset) -> Dataset:
    """What a result may refer to: the elements of the standard, less pixels, overlays and what is too large.

    Values are not looked at.  A whole series' headers are kept in memory.
    """
    from pydicom import Dataset as Empty

    header = Empty()
    for element in ds.elements():
        tag, value = element.tag, element.value
        if tag.is_private or tag.group == 0x7FE0 or tag.group & 0xFF00 == 0x6000:
            continue
        if isinstance(value, (bytes, str)) and len(value) > MAX_HEADER_VALUE and tag not in _FUNCTIONAL_GROUPS:
            continue
        header[tag] = element
    if hasattr(ds, "file_meta"):
        header.file_meta = ds.file_meta
    return header


def _raw_frames(ds: Dataset, source: str) -> NDArray[Any]:
    """Stored values, integers (N, H, W), after every limit was checked on the header alone."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in ds:
        raise InputError(f"{source}: no pixel data (a header, or a truncated file); export it again")
    absent = [name for name in _NEEDED if ds.get(name) in (None, "")]
    if absent:
        raise InputError(f"{source}: {', '.join(absent)} absent, pixels cannot be read; export it again")
    photometric = ds.PhotometricInterpretation
    if not str(photometric).startswith("MONOCHROME") or int(ds.get("SamplesPerPixel") or 1) != 1:
        what = known(photometric, _COLOURS, "PhotometricInterpretation or SamplesPerPixel of another kind")
        raise InputError(f"{source}: colour ({what}), not CT numbers; give the original CT image")
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.get("NumberOfFrames") or 1)
    check_shape(rows, columns, source)
    if not 1 <= frames <= MAX_FRAMES or rows * columns * frames > MAX_PIXELS:
        what = f"Rows x Columns x NumberOfFrames ({rows}x{columns}x...) is not 1 frame to {MAX_FRAMES}, of 2**28 pixels"
        raise InputError(f"{source}: {what}, the limit; split the file")
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        raise InputError(f"{source}: TransferSyntaxUID absent; set ds.file_meta.TransferSyntaxUID")
    if syntax in _UNCOMPRESSED and ds["PixelData"].is_undefined_length:
        raise InputError(f"{source}: compressed pixels, but the TransferSyntaxUID says none; export it again")
    compression = _uid_name(syntax, "of an unknown kind")
    package, plugin = (
        next((p for prefix, p in table.items() if str(syntax).startswith(prefix)), None)
        for table in (_DECODERS, _PLUGINS)
    )
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(f"{source}: compression ({compression}) unsupported; export it uncompressed") from error
    if package and (not decoder.is_available or (plugin and plugin not in decoder.available_plugins)):
        raise MissingDependencyError(f"{source}: no decoder for {compression}; pip install {package}")
    try:
        if plugin:
            check_streams(ds, rows, columns, frames)
        stored = pixel_array_by_gdcm(ds) if plugin == "gdcm" else pixel_array(ds, decoding_plugin=plugin or "")
        return np.asarray(stored).reshape(frames, rows, columns)
    except MemoryError:
        raise
    except Exception as error:
        if syntax == _JPEG_12_BIT:  # Pillow and GDCM claim this syntax and read only its 8-bit files
            message = (
                f"{source}: no decoder with a permissive licence for 12-bit lossy JPEG; export it uncompressed, or "
                "install pylibjpeg-libjpeg (GPL) where you may"
            )
            raise MissingDependencyError(message) from error
        kind = type(error).__name__
        raise InputError(f"{source}: damaged or truncated pixels ({kind}); export it again") from error


def _slice(ds: Dataset, n: int, raw: NDArray[Any], source: str, header: Dataset, assumed: tuple[str, ...]) -> CtSlice:
    notes = list(assumed)
    transform = macro(ds, n, "PixelValueTransformationSequence")
    kind = transform.get("RescaleType")
    kind = kind.strip() if isinstance(kind, str) else kind
    if kind not in (None, "", "HU"):
        what = known(kind, _RESCALE_TYPES, "another unit")
        raise InputError(f"{source}: RescaleType is {what}, not HU; give the original CT image")
    slope, intercept = (numbers(transform, f"Rescale{name}", 1, source) for name in ("Slope", "Intercept"))
    if slope is None or intercept is None:
        if "ModalityLUTSequence" in ds:
            raise InputError(f"{source}: a modality table, not a rescale; give the original CT image")
        notes.append("RescaleSlope or RescaleIntercept is missing: 1 and 0 are assumed")
    if slope == [0.0]:
        raise InputError(f"{source}: RescaleSlope is 0, every pixel would be equal; export the image again")
    with np.errstate(over="ignore"):  # the clip below takes care of it
        hu = raw.astype(np.float32) * np.float32((slope or [1.0])[0]) + np.float32((intercept or [0.0])[0])
    hu = np.clip(hu, HU_MIN, HU_MAX)
    hu[_padding(ds, raw, source)] = HU_MIN

    iop = numbers(macro(ds, n, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, source)
    ipp = numbers(macro(ds, n, "PlanePositionSequence"), "ImagePositionPatient", 3, source)
    spacing = numbers(macro(ds, n, "PixelMeasuresSequence"), "PixelSpacing", 2, source)
    if iop is None:
        notes.append("ImageOrientationPatient is missing: the usual axial orientation is assumed")
    if spacing is None:
        notes.append("PixelSpacing is missing: areas in mm2 are unknown")
    elif min(spacing) <= 0:
        raise InputError(f"{source}: PixelSpacing is {spacing}, both must be above 0 mm; export it again")
    flips, transposed, normal = _to_axial(iop or [1, 0, 0, 0, 1, 0], source)
    if spacing and transposed:
        spacing.reverse()
    return CtSlice(
        CtSlice.to_model_frame(hu, flips, transposed),
        (spacing[0], spacing[1]) if spacing else None,
        flips,
        transposed,
        source,
        position_mm=float(normal @ ipp) if iop and ipp else None,
        sop_instance_uid=str(ds.get("SOPInstanceUID") or "") or None,
        frame=n,
        notes=tuple(notes),
        header=header,
    )


def macro(ds: Dataset, n: int, name: str) -> Dataset:
    """Where frame n keeps some tags: its own functional group, the shared one, or the top level."""
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[n : n + 1], *shared[:1]):
        if group.get(name):
            item: Dataset = group[name].value[0]
            return item
    return ds


def numbers(ds: Dataset, name: str, count: int, source: str) -> list[float] | None:
    """`count` finite numbers of a tag; None if it is absent or empty; InputError for anything else."""
    try:
        value = ds.get(name)
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            return None
        found = [float(v) for v in (value if count > 1 else [value])]
    except Exception as error:
        raise InputError(f"{source}: {name} is not a number; export the image again") from error
    if len(found) != count or not np.isfinite(found).all():
        what = f"{name} holds {len(found)} values" + (", not all finite" if len(found) == count else "")
        raise InputError(f"{source}: {what}; {count} finite numbers are needed; export it again")
    return found


def _padding(ds: Dataset, raw: NDArray[Any], source: str) -> NDArray[np.bool_]:
    """Where the stored values mean "nothing was measured here"."""
    ends = [numbers(ds, name, 1, source) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(raw.shape, dtype=bool)
    # Some writers store the tag with the other signedness than the pixels: 63536 for -2000.
    bits = 8 * raw.dtype.itemsize
    low = -(2 ** (bits - 1)) if raw.dtype.kind == "i" else 0
    values = [(int(end[0]) - low) % 2**bits + low for end in ends if end is not None]
    return np.asarray((raw >= min(values)) & (raw <= max(values)))


def _to_axial(iop: list[float], source: str) -> tuple[tuple[bool, bool], bool, NDArray[np.float64]]:
    """ImageOrientationPatient -> (flips, transposed, unit normal to the head).

    Patient axes: x to the left, y to the back, z to the head.
    InputError unless the slice is axial within MAX_TILT and turned in its plane by less than MAX_TURN.
    """
    along_row, along_column = np.reshape(iop, (2, 3)).astype(np.float64)  # of growing column, row number
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if max(abs(length - 1) for length in lengths) > 0.05 or abs(along_row @ along_column) > 0.05:
        what = "ImageOrientationPatient is not two unit vectors at right angles"
        raise InputError(f"{source}: {what}; export it again")
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal)
    if abs(normal[2]) < np.cos(MAX_TILT):
        plane = ("sagittal", "coronal", "oblique")[int(np.argmax(np.abs(normal)))]
        raise InputError(f"{source}: a {plane} slice, only axial ones are understood; give the axial series")
    in_plane = np.abs(along_row[:2]) / np.linalg.norm(along_row[:2])
    if in_plane.max() < np.cos(MAX_TURN):
        angle = np.degrees(np.arccos(in_plane[0]))
        raise InputError(f"{source}: turned by {angle:.0f} degrees in its plane; give a straight axial series")
    transposed = bool(in_plane[1] > in_plane[0])
    x, y = (along_column[0], along_row[1]) if transposed else (along_row[0], along_column[1])
    return (bool(y < 0), bool(x < 0)), transposed, normal * np.sign(normal[2])
