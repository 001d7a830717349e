"""The attributes that a DICOM object copies from an image's header: checked, then copied, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN

if TYPE_CHECKING:
    from pydicom import Dataset

    from .result import Result

CT = "1.2.840.10008.5.1.4.1.1.2"
# Enhanced CT, and legacy converted
ENHANCED = (CT + ".1", CT + ".2")
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Of patient and study; a PACS files the object by them.  The standard requires all but the last two, possibly empty.
IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "IssuerOfPatientID",
)
OPTIONAL = IDENTITY[-2:]
TEXTS = (*IDENTITY, "PositionReferenceIndicator")
# What PositionReferenceIndicator may be copied as: the standard's landmarks, and how scanners shorten them.  It is free
# text, and unlike that of patient and study nobody needs it to file the object.
LANDMARKS = frozenset(
    (
        "EAM", "EXTERNAL AUDITORY MEATUS", "IC", "ILIAC CREST", "LOWER COSTAL MARGIN", "OM", "ORBITAL-MEDIAL", "SN",
        "SP", "STERNAL NOTCH", "SYMPHYSIS PUBIS", "XIPHOID", "XY",
    )
)  # fmt: skip
# characters of a value; of a name, of each way to write it
LIMITS = {"LO": 64, "SH": 16, "PN": 64, "DA": 8, "TM": 16, "CS": 16, "DS": 16}
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def check_header(result: Result) -> None:
    """Raise InputError unless the header has the attributes that a DICOM object needs, geometry aside."""
    source, header = result.ct.source, result.ct.header
    if header is None:
        raise InputError(f"{source}: not a DICOM image, so a DICOM object cannot refer to it; write NIfTI or PNG")
    wrong = [f"{name} is {why}" for name in UIDS if (why := _uid_problem(value_of(header, name)))]
    sides = [value_of(header, name) for name in ("Rows", "Columns")]
    wrong += [f"{name} is absent" for name, value in zip(("Rows", "Columns"), sides, strict=True) if not value]
    if wrong:
        raise InputError(f"{source}: {', '.join(wrong)}, which a DICOM object needs; {EXPORT_AGAIN}")
    if value_of(header, "SOPClassUID") not in (CT, *ENHANCED):
        raise InputError(f"{source}: SOPClassUID is not that of a CT image; give the original CT image")
    if tuple(sides) != result.mask.shape:
        rows, columns = result.mask.shape
        pixels = f"{sides[0]}x{sides[1]} pixels"
        raise InputError(f"{source}: a mask of {rows}x{columns} for {pixels}; give the mask in the slice's own grid")


def check_one_series(results: Sequence[Result]) -> None:
    """Raise InputError unless all results are of one series, in one frame of reference."""
    check_one_origin([result.ct.header for result in results])
    for name in ("Rows", "Columns", "SOPClassUID"):
        count = len({str(value_of(result.ct.header, name)) for result in results})
        if count > 1:
            raise InputError(f"{len(results)} results with {count} different {name}; write each series separately")


def check_one_origin(headers: Sequence[Any]) -> None:
    """Raise InputError unless all headers are of one patient, study, series and frame of reference."""
    patients = len({_patient(header) for header in headers})
    if patients > 1:
        raise InputError(f"{len(headers)} results of {patients} patients; write each series separately")
    for name in UIDS[2:]:
        count = len({str(value_of(header, name) or "") for header in headers})
        if count > 1:
            raise InputError(f"{len(headers)} results with {count} different {name}; write each series separately")


def _patient(header: Any) -> tuple[str, ...]:
    """Return what tells patients apart, decoded: some headers were read before, others still hold bytes."""
    names = ("PatientID", "PatientName", "PatientBirthDate")
    return tuple(str(value_of(header, name) or "").rstrip("^ ").lower() for name in names)


def is_enhanced(header: Any) -> bool:
    """Return whether the header is of a multi-frame class."""
    return value_of(header, "SOPClassUID") in ENHANCED


def value_of(header: Any, name: str) -> Any:
    """Return the value of an attribute; None if it is absent, empty, or its bytes do not convert to its type."""
    try:
        value = header.get(name)
        return None if value is None or value == "" else value
    except Exception:
        # pydicom raises almost any class
        return None


def without_geometry(header: Any) -> Dataset:
    """Copy the attributes, without geometry, into a new Dataset; required ones that are absent become empty.

    All text is decoded, so that it can be written in another character set.
    """
    from pydicom import Dataset

    ds = Dataset()
    for name in UIDS:
        setattr(ds, name, str(value_of(header, name)))
    ds.Modality, ds.Rows, ds.Columns = "CT", int(header.Rows), int(header.Columns)
    for name in TEXTS:
        text = _text(header, name)
        if text or name not in OPTIONAL:
            setattr(ds, name, text)
    if value_of(header, "LossyImageCompression") == "01":
        for name in LOSSY:
            if (value := value_of(header, name)) is not None and _fits(name, value):
                setattr(ds, name, value)
    return ds


def _uid_problem(value: Any) -> str | None:
    from pydicom.uid import UID

    if value is None:
        return "absent"
    return None if isinstance(value, str) and UID(value).is_valid else "not a UID"


def _text(header: Any, name: str) -> str:
    """Return the decoded text of an attribute; empty if it is absent or not valid for the attribute."""
    from pydicom.multival import MultiValue
    from pydicom.valuerep import DA, TM

    value = value_of(header, name)
    if value is None or not _fits(name, value):
        return ""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    if name == "PositionReferenceIndicator":
        return text if text.strip().upper() in LANDMARKS else ""
    if name == "PatientSex":
        return text if text in ("M", "F", "O") else ""
    try:
        if name.endswith("Date"):
            DA(text)
        elif name.endswith("Time"):
            TM(text)
    except ValueError:
        return ""
    return text


def _fits(name: str, value: Any) -> bool:
    """Return whether no value of an attribute is longer than its type allows."""
    from pydicom.datadict import dictionary_VR
    from pydicom.multival import MultiValue

    vr = dictionary_VR(name)
    values = [str(one) for one in (value if isinstance(value, MultiValue) else (value,))]
    if vr == "PN":
        values = [way for one in values for way in one.split("=")]
    return all(len(one) <= LIMITS[vr] for one in values)
