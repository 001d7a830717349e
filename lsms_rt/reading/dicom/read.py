"""Read one DICOM file or dataset as CT slices in Hounsfield units; what cannot be trusted is rejected, not guessed.

Messages name the attribute.  Of its value they contain only numbers and the standard's own terms: any other text may be
a patient's name in the wrong attribute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.ct_slice import CtSlice, check_shape
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.reading.budget import Budget
from lsms_rt.reading.environment import import_pydicom, raise_if_machine
from lsms_rt.reading.limits import MAX_SLICES, inflation_limit
from lsms_rt.reading.quiet import quiet_pydicom
from lsms_rt.reading.stated import NOTHING, Stated

from .compressed import check_streams
from .decoder_process import decode
from .geometry import EXPORT_AGAIN, image_position, orientation_of, spacing_of, to_axial
from .hounsfield import check_bits, hounsfield
from .image_type import check_image_type, image_type_note
from .kept_header import kept_header

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# Rows x Columns x NumberOfFrames; a few kilobytes of RLE can claim far more
MAX_PIXELS = 2**28

# CT Image; .1 is Enhanced CT and .2 legacy converted
_CT = "1.2.840.10008.5.1.4.1.1.2"
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
# transfer syntax, or its beginning -> the package with a permissive license that decodes it
_DECODERS = {
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.8": "pyjpegls",
    "1.2.840.10008.1.2.4.9": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.20": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4": "python-gdcm",
}
# transfer syntax, or its beginning -> pydicom's decoder to use, in a subprocess.  pydicom would prefer GDCM, which some
# damaged streams crash: it is used only where no other decoder can.
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.8": "pyjpegls",
    "1.2.840.10008.1.2.4.9": "pylibjpeg",
    "1.2.840.10008.1.2.4.20": "pylibjpeg",
    "1.2.840.10008.1.2.4": "gdcm",
}
_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
# The standard's own terms, which messages may repeat.
_MODALITIES = frozenset(
    (
        *("CR", "DX", "MG", "MR", "NM", "OT", "PR", "PT", "REG"),
        *("RF", "RTDOSE", "RTPLAN", "RTSTRUCT", "SEG", "SR", "US", "XA"),
    )
)
_COLORS = frozenset(("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"))
_ORIGINAL = "give the original CT image"


def slices_from_dataset(
    ds: Dataset,
    source: str = "Dataset",
    notes: tuple[str, ...] = (),
    stated: Stated = NOTHING,
    budget: Budget | None = None,
) -> list[CtSlice]:
    """Read all slices of a dataset, in its order.

    Args:
        ds: a pydicom Dataset with pixels.
        source: its name in messages.
        notes: assumptions that were made before, for ``CtSlice.notes``.
        stated: facts that it does not hold.
        budget: what the input has spent that it belongs to; None if the dataset is all of it.

    Raises:
        InputError: not a CT image that can be used.
        MissingDependencyError: the decoder of its pixels is not installed.
    """
    import_pydicom()
    spent = budget or Budget(source)
    with spent.working(), quiet_pydicom():
        try:
            check_is_ct(ds, source)
            check_bits(ds, source)
            if budget is None:
                spent.packed = len(ds.get("PixelData") or b"")
            raw = _raw_frames(ds, source, spent)
            header, size = kept_header(ds, len(raw), source)
            spent.add_header(size)
            derived = image_type_note(ds)
            notes += (derived,) if derived else ()
            return [_slice(ds, n, raw[n], source, header, notes, stated) for n in range(len(raw))]
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            raise_if_machine(error, source)
            # e.g. an attribute whose bytes do not convert to its type
            kind = type(error).__name__
            raise InputError(f"{source}: malformed DICOM header ({kind}); {EXPORT_AGAIN}") from error


def is_ct_class(uid: object, *, absent: bool = False) -> bool:
    """Return whether a SOPClassUID is one of CT images; ``absent`` for an empty one."""
    return uid in (_CT, _CT + ".1", _CT + ".2") if uid else absent


def check_is_ct(ds: Dataset, source: str) -> None:
    """Raise InputError unless the dataset is of a CT image class, and not a localizer, projection or map.

    Anonymizers empty the class: then that of the file's meta header counts, or an ImageType that is axial.
    """
    modality = ds.get("Modality")
    sop_class = ds.get("SOPClassUID") or getattr(ds, "file_meta", {}).get("MediaStorageSOPClassUID")
    if modality != "CT":
        raise InputError(f"{source}: Modality is {_known(modality, _MODALITIES, 'another')}, not CT; give a CT image")
    if not is_ct_class(sop_class, absent="AXIAL" in _terms(ds.get("ImageType"))):
        what = _uid_name(sop_class, "unknown")
        raise InputError(f"{source}: SOP class is {what}, not a CT image class; {_ORIGINAL}")
    check_image_type(ds, source)


def _terms(value: object) -> list[object]:
    """The values of an attribute that may have one, several or none."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []


def _known(value: object, vocabulary: frozenset[str], otherwise: str) -> str:
    """The value, if it is one of the standard's terms; other text is not repeated in messages."""
    if value is None or value == "":
        return "absent"
    return str(value) if isinstance(value, str) and value in vocabulary else otherwise


def _uid_name(uid: object, otherwise: str) -> str:
    """The standard's name of a UID; an unknown UID is not repeated, since it may identify a patient."""
    name = getattr(uid, "name", None)
    return "absent" if not uid else str(name) if name and name != uid else otherwise


def _raw_frames(ds: Dataset, source: str, budget: Budget) -> NDArray[Any]:
    """Decode the stored values, integers (N, H, W), after all limits were checked on the header alone."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    rows, columns, frames = _check_pixels(ds, source)
    budget.add_pixels(rows * columns * frames)
    syntax = ds.file_meta.TransferSyntaxUID
    compression = _uid_name(syntax, "of an unknown kind")
    package, plugin = (
        next((p for prefix, p in table.items() if str(syntax).startswith(prefix)), None)
        for table in (_DECODERS, _PLUGINS)
    )
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        message = f"{source}: compression ({compression}) is not supported; export it uncompressed"
        raise InputError(message) from error
    if package and (not decoder.is_available or (plugin and plugin not in decoder.available_plugins)):
        raise MissingDependencyError(f"{source}: no decoder for {compression}; pip install {package}")
    try:
        if plugin:
            check_streams(ds, rows, columns, frames)
        stored = decode(ds, plugin, budget, source) if plugin else pixel_array(ds)
        return np.asarray(stored).reshape(frames, rows, columns)
    except (LsmsError, MemoryError):
        raise
    except Exception as error:
        raise_if_machine(error, source)
        # Pillow and GDCM claim to read 12-bit JPEG, and read only its 8-bit files.
        if syntax == _JPEG_12_BIT:
            message = (
                f"{source}: no decoder with a permissive license for 12-bit lossy JPEG; export it uncompressed, or "
                "install pylibjpeg-libjpeg (GPL) if you may"
            )
            raise MissingDependencyError(message) from error
        kind = type(error).__name__
        raise InputError(f"{source}: damaged or truncated pixels ({kind}); {EXPORT_AGAIN}") from error


def _check_pixels(ds: Dataset, source: str) -> tuple[int, int, int]:
    """Return (rows, columns, frames) after the pixel attributes were checked."""
    if "PixelData" not in ds:
        raise InputError(f"{source}: no pixel data (a header, or a truncated file); {EXPORT_AGAIN}")
    absent = [name for name in _NEEDED if ds.get(name) in (None, "")]
    if absent:
        raise InputError(f"{source}: {', '.join(absent)} absent, so pixels cannot be read; {EXPORT_AGAIN}")
    photometric = ds.PhotometricInterpretation
    if not str(photometric).startswith("MONOCHROME") or int(ds.get("SamplesPerPixel") or 1) != 1:
        what = _known(photometric, _COLORS, "PhotometricInterpretation or SamplesPerPixel of another kind")
        raise InputError(f"{source}: a color image ({what}), not CT numbers; {_ORIGINAL}")
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.get("NumberOfFrames") or 1)
    check_shape(rows, columns, source)
    if not 1 <= frames <= MAX_SLICES or rows * columns * frames > MAX_PIXELS:
        what = f"Rows x Columns x NumberOfFrames ({rows}x{columns}x...) is outside the limits"
        raise InputError(f"{source}: {what} of 1 to {MAX_SLICES} frames and 2**28 pixels; split the file")
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        raise InputError(f"{source}: TransferSyntaxUID absent; set ds.file_meta.TransferSyntaxUID")
    if syntax in _UNCOMPRESSED and ds["PixelData"].is_undefined_length:
        raise InputError(f"{source}: compressed pixels, but an uncompressed TransferSyntaxUID; {EXPORT_AGAIN}")
    size, packed = rows * columns * frames * int(ds.BitsAllocated) // 8, len(ds.PixelData)
    if syntax in _UNCOMPRESSED and size > packed:
        raise InputError(f"{source}: damaged or truncated pixels ({packed} of {size} bytes); {EXPORT_AGAIN}")
    if size > inflation_limit(packed) and syntax not in _UNCOMPRESSED:
        what = f"{size / 2**20:.0f} MiB of pixels in {packed} bytes, more than a CT image compresses"
        raise InputError(f"{source}: {what}; export it uncompressed")
    return rows, columns, frames


def _slice(
    ds: Dataset, n: int, raw: NDArray[Any], source: str, header: Dataset, assumed: tuple[str, ...], stated: Stated
) -> CtSlice:
    notes = list(assumed)
    hu = hounsfield(ds, n, raw, source, stated, notes)
    orientation = orientation_of(ds, n, source, stated, notes)
    position = image_position(ds, n, source)
    spacing = spacing_of(ds, n, source, stated, notes)
    flips, transposed, normal = to_axial(orientation, source)
    if spacing and transposed:
        spacing.reverse()
    return CtSlice(
        CtSlice.to_model_frame(hu, flips, transposed),
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        flips=flips,
        transposed=transposed,
        source=source,
        position_mm=float(normal @ position) if position else None,
        sop_instance_uid=str(header.get("SOPInstanceUID") or "") or None,
        frame=n,
        notes=tuple(notes),
        side_known=True,
        header=header,
    )
