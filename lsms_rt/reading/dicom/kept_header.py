"""The part of a header that stays in memory with the slices: what outputs copy, what tells series apart, geometry.

A series may have thousands of headers, and an empty item of a sequence alone takes over a kilobyte.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError

from .geometry import EXPORT_AGAIN

if TYPE_CHECKING:
    from pydicom import Dataset

# bytes of one value; the longest legal one, a name in three scripts, has 800
MAX_VALUE = 1024
KEPT = (
    *("SpecificCharacterSet", "Modality", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientName", "PatientID", "IssuerOfPatientID"),
    *("PatientBirthDate", "PatientSex", "PatientPosition", "PatientOrientation", "StudyID", "StudyDate", "StudyTime"),
    *("StudyDescription", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "SeriesDescription"),
    *("SeriesDate", "SeriesTime", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
    *("ContentDate", "ContentTime", "InstanceNumber", "TemporalPositionIdentifier", "TemporalPositionIndex"),
    *("ContrastBolusAgent", "ContrastBolusAgentPhase", "ConvolutionKernel", "KVP", "ReconstructionDiameter"),
    *("NominalPercentageOfCardiacPhase", "ProtocolName", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "SliceLocation", "GantryDetectorTilt", "LossyImageCompression"),
    *("LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation", "Manufacturer"),
)
# functional group -> its attributes
_GEOMETRY = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
}
_META = ("TransferSyntaxUID", "MediaStorageSOPClassUID")


def check_values(ds: Dataset, source: str) -> None:
    """Raise InputError for a kept attribute that is longer than the standard allows, or a sequence."""
    _kept(ds, KEPT, source)


def kept_header(ds: Dataset, frames: int, source: str) -> tuple[Dataset, int]:
    """Copy the attributes of ``KEPT``, and the geometry of each frame; values are not parsed.

    Returns:
        The copy, and the bytes of its values.

    Raises:
        InputError: an attribute is longer than the standard allows.
    """
    from pydicom.dataset import FileMetaDataset

    header = _copied(ds, KEPT, source)
    size = sum(len(e.value) for e in header.elements() if isinstance(e.value, (bytes, str)))
    for kind, count in (("Shared", 1), ("PerFrame", frames)):
        name = f"{kind}FunctionalGroupsSequence"
        if groups := (ds.get(name) or [])[:count]:
            setattr(header, name, [_geometry_of(group, source) for group in groups])
    if hasattr(ds, "file_meta"):
        header.file_meta = FileMetaDataset()
        header.file_meta.update(_copied(ds.file_meta, _META, source))
    return header, size


def _geometry_of(group: Dataset, source: str) -> Dataset:
    """Copy the geometry of a functional group, one item each."""
    from pydicom import Dataset as Empty

    kept = Empty()
    for name, attributes in _GEOMETRY.items():
        if items := group.get(name):
            setattr(kept, name, [_copied(items[0], attributes, source)])
    return kept


def _copied(ds: Dataset, names: tuple[str, ...], source: str) -> Dataset:
    from pydicom import Dataset as Empty

    copy = Empty()
    for element in _kept(ds, names, source):
        copy[element.tag] = element
    return copy


def _kept(ds: Dataset, names: tuple[str, ...], source: str) -> list[Any]:
    """Return the elements of ``names``; InputError if one is not as short as the standard's."""
    tags = _tags(names)
    # In their order, but only those: ``elements`` sorts all of a header's.
    elements = sorted((element for element in ds.values() if element.tag in tags), key=lambda element: int(element.tag))
    for element in elements:
        long = isinstance(element.value, (bytes, str)) and len(element.value) > MAX_VALUE
        if long or element.VR == "SQ":
            what = f"{tags[element.tag]} is a sequence, or longer than {MAX_VALUE} bytes"
            raise InputError(f"{source}: {what}; {EXPORT_AGAIN}")
    return elements


@cache
def _tags(names: tuple[str, ...]) -> dict[int, str]:
    from pydicom.datadict import tag_for_keyword

    return {tag: name for name in names if (tag := tag_for_keyword(name)) is not None}
