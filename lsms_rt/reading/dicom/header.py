"""The header of a CT image: whose it is, where its frames lie, and what one phase of a scan differs by from another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.limits import MAX_POSITION, MAX_SLICES
from lsms_rt.reading.quiet import quiet_pydicom

from .geometry import EXPORT_AGAIN, directions, functional_group, numbers
from .kept_header import MAX_VALUE
from .parse import IsDicomdir, open_dataset
from .read import check_is_ct, is_ct_class
from .source import Source

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")
# Anonymizers also write words, or a single digit.
_UID = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class Attribute:
    """An attribute that two phases, or two reconstructions, of a scan may differ in.

    Attributes:
        name: its keyword.
        group: the functional group that holds it in an Enhanced CT; "" if none does.
        enhanced: its keyword there.
        first: the first of its values that is compared.
        measured: whether it is a measured quantity: values within 5 % are equal.
        counts: whether its values grow while a scan goes on.
        blocks: whether one scan may hold blocks of slices that differ in it.
    """

    name: str
    group: str = ""
    enhanced: str = ""
    first: int = 0
    measured: bool = False
    counts: bool = False
    blocks: bool = False


# "AcquisitionTime" stands for all attributes of the time of acquisition.
PHASES = (
    Attribute("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber", counts=True),
    Attribute("AcquisitionTime", "FrameContentSequence", "FrameAcquisitionDateTime", counts=True),
    Attribute("StackID", "FrameContentSequence", "StackID"),
    # ms from the R wave; it follows the heart beat
    Attribute("TriggerTime", measured=True, blocks=True),
    Attribute("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex"),
    Attribute("ContrastBolusAgentPhase", "ContrastBolusUsageSequence", "ContrastBolusAgentPhase"),
    Attribute("ContrastBolusAgent"),
    Attribute("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    Attribute("ImageType", "CTImageFrameTypeSequence", "FrameType", first=2),
    Attribute("KVP", "CTXRayDetailsSequence", "KVP", measured=True),
    Attribute("ConvolutionKernel", "CTReconstructionSequence", "ConvolutionKernel"),
    Attribute("SliceThickness", "PixelMeasuresSequence", "SliceThickness", measured=True, blocks=True),
    Attribute("ReconstructionDiameter", "CTReconstructionSequence", "ReconstructionDiameter", measured=True),
    Attribute("PixelSpacing", "PixelMeasuresSequence", "PixelSpacing", measured=True),
    Attribute("SeriesDescription"),
    Attribute("ProtocolName"),
    Attribute("SeriesTime"),
)


@dataclass(frozen=True)
class Key:
    """The attributes that are equal in all files of a stack; empty ones are "", or None.

    Attributes:
        patient: digest of the patient's number, name and birth date.
        study: StudyInstanceUID.
        frame_of_reference: FrameOfReferenceUID; positions in different ones cannot be compared.
        uid: SeriesInstanceUID, "" also for a text that is no UID.
        number: SeriesNumber.
        rows: Rows.
        columns: Columns.
    """

    patient: str = field(repr=False)
    study: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    uid: str = field(repr=False)
    number: int | None
    rows: int
    columns: int


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        orientation: ImageOrientationPatient (6); None if it is absent.
        position: ImagePositionPatient (3), in mm; None if it is absent.
        phase: the values of ``PHASES``.
    """

    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    phase: tuple[object, ...] = field(repr=False)


@dataclass(frozen=True)
class Header:
    """The attributes of a CT image that are read before its pixels.

    Attributes:
        source: the file.
        key: of its stack.
        instance: SOPInstanceUID.
        image: InstanceNumber.
        count: number of frames.
        word: what stands in the place of SeriesInstanceUID, if it is no UID.
        frames: one per frame, or a single one for all.
    """

    source: Source = field(compare=False)
    key: Key
    instance: str = field(repr=False)
    image: int | None
    count: int
    word: str = field(repr=False)
    frames: tuple[Frame, ...]


def header_of(source: Source) -> Header | str:
    """Read the header of a CT image.

    Returns:
        The header, or the reason why the object is not a CT image.

    Raises:
        InputError: the file is damaged.
    """
    try:
        ds = open_dataset(source, header_only=True).ds
    except IsDicomdir as error:
        return str(error)
    return header_from(ds, source)


def header_from(ds: Dataset, source: Source) -> Header | str:
    """Take the header from a Dataset; as :func:`header_of`."""
    # A header of thousands of frames takes time, too.
    with source.budget.working(), _malformed(source.label):
        return _header(ds, source)


def frames_of(ds: Dataset, count: int, name: str) -> tuple[Frame, ...]:
    """Return the frames of a Dataset with ``count``: one each, or one for all if it describes none of them.

    Raises:
        InputError: the header is malformed; ``name`` is the file's name in messages.
    """
    with _malformed(name):
        described = len(ds.get("PerFrameFunctionalGroupsSequence") or [])
        return tuple(_frame(ds, n, name) for n in range(max(1, min(count, described))))


@contextmanager
def _malformed(name: str) -> Iterator[None]:
    """Turn what pydicom raises for malformed values, which is almost any class, into an InputError."""
    with quiet_pydicom():
        try:
            yield
        except LsmsError:
            raise
        except Exception as error:
            kind = type(error).__name__
            raise InputError(f"{name}: malformed DICOM header ({kind}); {EXPORT_AGAIN}") from error


def _header(ds: Dataset, source: Source) -> Header | str:
    classes = ds.get("SOPClassUID"), ds.file_meta.get("MediaStorageSOPClassUID")
    may_be_ct = not classes[0] or any(map(is_ct_class, classes))
    # First, since a truncated file lacks other attributes too.
    if may_be_ct and not (ds.get("Rows") and ds.get("Columns")):
        raise InputError(f"{source.label}: no Rows or Columns (damaged or truncated DICOM); {EXPORT_AGAIN}")
    # A slice that lost its Modality is a slice, not an object of another kind.
    if any(map(is_ct_class, classes)) and not ds.get("Modality"):
        raise InputError(f"{source.label}: a CT image without a Modality; {EXPORT_AGAIN}")
    try:
        check_is_ct(ds, source.label)
    except InputError as error:
        return str(error)
    count = int(ds.get("NumberOfFrames") or 1)
    # The value is not repeated: out of range it may be any number, even one that identifies a patient.
    if not 1 <= count <= MAX_SLICES:
        raise InputError(f"{source.label}: NumberOfFrames is not 1 to {MAX_SLICES}; split the file")
    uid = _text(ds, "SeriesInstanceUID")
    key = Key(
        patient=_patient(ds),
        study=_text(ds, "StudyInstanceUID"),
        frame_of_reference=_text(ds, "FrameOfReferenceUID"),
        uid=uid if _UID.fullmatch(uid) else "",
        number=_integer(ds, "SeriesNumber"),
        rows=int(ds.Rows),
        columns=int(ds.Columns),
    )
    return Header(
        source=source,
        key=key,
        instance=_text(ds, "SOPInstanceUID"),
        image=_integer(ds, "InstanceNumber"),
        count=count,
        word="" if key.uid else uid,
        frames=frames_of(ds, count, source.label),
    )


def _patient(ds: Dataset) -> str:
    """A digest of the patient's number, name and birth date, as they are stored."""
    texts = [_text(ds, name).rstrip("^ ") for name in _PATIENT]
    # In other character sets, which may begin with an escape, a byte of another letter would change.
    same_case = (text.lower() if text.isascii() and "\x1b" not in text else text for text in texts)
    return sha256("\0".join(same_case).encode()).hexdigest()


def _frame(ds: Dataset, n: int, name: str) -> Frame:
    orientation = numbers(functional_group(ds, n, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, name)
    position = numbers(functional_group(ds, n, "PlanePositionSequence"), "ImagePositionPatient", 3, name)
    if orientation is not None:
        directions(orientation, name)
    if position is not None and max(map(abs, position)) > MAX_POSITION:
        raise InputError(f"{name}: ImagePositionPatient is over {MAX_POSITION:g} mm from the origin; {EXPORT_AGAIN}")
    return Frame(
        None if orientation is None else tuple(orientation),
        None if position is None else tuple(position),
        tuple(_phase(ds, n, attribute) for attribute in PHASES),
    )


def _phase(ds: Dataset, n: int, attribute: Attribute) -> object:
    """The value of an attribute of frame ``n``, as a number or a text that compare; None if it is absent."""
    group = functional_group(ds, n, attribute.group) if attribute.group else ds
    if attribute.name == "AcquisitionTime":
        moments = [_text(group, attribute.enhanced), _text(ds, "AcquisitionDateTime")]
        time = _text(ds, "AcquisitionTime")
        return next(filter(None, moments), _text(ds, "AcquisitionDate") + time.replace(":", "") if time else None)
    # A classic image has no groups.
    holders = (ds,) if group is ds else (group, ds)
    for name in filter(None, (attribute.enhanced, attribute.name)):
        for holder in holders:
            if (value := _comparable(holder, name, attribute)) is not None:
                return value
    return None


def _comparable(ds: Dataset, name: str, attribute: Attribute) -> object:
    if _tag(name) not in ds:
        return None
    if attribute.measured or name.endswith(("Number", "Index", "Identifier", "Phase")):
        try:
            value = ds.get(name)
            several = isinstance(value, Sequence) and not isinstance(value, str)
            # PixelSpacing is compared as the area of a pixel.
            number = float(f"{prod(map(float, value)):.3g}") if several else float(value)
            if isfinite(number):
                return number
        except Exception:
            # absent, or words
            pass
    # Cut, since it is kept for every frame; no legal value is longer.
    return "\\".join(_text(ds, name)[:MAX_VALUE].split("\\")[attribute.first :]) or None


def _integer(ds: Dataset, name: str) -> int | None:
    """An integer that only distinguishes series or images; None if it is absent or not a number."""
    try:
        return int(ds.get(name))
    except Exception:
        # absent, empty, or text, which pydicom rejects in several ways
        return None


@cache
def _tag(name: str) -> BaseTag:
    """Look up the tag of an attribute, which many are asked for in each file."""
    from pydicom.tag import Tag

    return Tag(name)


def _text(ds: Dataset, name: str) -> str:
    """An attribute's text as it is stored, whatever its character set; "" if it is absent."""
    try:
        element: Any = ds.get_item(_tag(name))
    except KeyError:
        return ""
    value: Any = None if element is None else element.value
    if isinstance(value, bytes):
        return value.decode("latin-1").strip("\0 ")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(str(part) for part in value)
    return str(value or "").strip("\0 ")
