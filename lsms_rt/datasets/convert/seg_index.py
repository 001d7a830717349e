"""All DICOM files of a folder by their headers, and which CT series a Segmentation belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lsms_rt.errors import InputError
from lsms_rt.privacy import label
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN
from lsms_rt.reading.dicom.parse import IsDicomdir, looks_like_dicom, open_dataset
from lsms_rt.reading.dicom.read import is_ct_class
from lsms_rt.reading.dicom.source import FileSource, is_visible
from lsms_rt.reading.quiet import quiet_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

# Segmentation Storage; .7 is Label Map Segmentation Storage
_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@dataclass
class Series:
    """The CT images of one series, and the Segmentations that belong to it."""

    patient: str
    paths: list[Path] = field(default_factory=list)
    segmentations: list[FileSource] = field(default_factory=list)
    # Those that a Segmentation refers to.
    referenced: set[Path] = field(default_factory=set)


@dataclass
class Index:
    """All DICOM files of a folder, by their headers."""

    series: dict[str, Series] = field(default_factory=dict)
    # SOPInstanceUID -> SeriesInstanceUID, and the file
    images: dict[str, tuple[str, Path]] = field(default_factory=dict)
    # FrameOfReferenceUID -> SeriesInstanceUIDs
    frames: dict[str, set[str]] = field(default_factory=dict)
    # Series of other modalities; their Segmentations are none of ours.
    others: set[str] = field(default_factory=set)
    segmentations: list[tuple[FileSource, Dataset]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sources_of(folder: Path) -> Iterator[FileSource]:
    """Yield all visible files in order; collections have more files than a series may have."""
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    visible = sorted(path for path in paths if is_visible(path.relative_to(folder).parts))
    for n, path in enumerate(visible, 1):
        yield FileSource(path, label(path, f"file {n} of {len(visible)}"))


def add_file(index: Index, source: FileSource) -> None:
    """Read the header of a file; files that are not DICOM are passed over."""
    try:
        if not looks_like_dicom(source.head()):
            return
        ds = open_dataset(source, header_only=True).ds
        with quiet_pydicom():
            sop_class = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "")
            uid = str(ds.get("SeriesInstanceUID") or "")
            if is_ct_class(sop_class) and not (uid and ds.get("Rows") and ds.get("Columns")):
                # It may be a slice of a scan with lesions.
                index.problems.append(f"{source.label}: a damaged or truncated CT image; {EXPORT_AGAIN}")
            elif sop_class in _SEG_CLASSES:
                index.segmentations.append((source, ds))
            elif is_ct_class(sop_class) and "LOCALIZER" not in (ds.get("ImageType") or []):
                patient = str(ds.get("PatientID") or ds.get("StudyInstanceUID") or uid)
                index.series.setdefault(uid, Series(patient)).paths.append(source.path)
                index.images[str(ds.get("SOPInstanceUID") or "")] = uid, source.path
                index.frames.setdefault(str(ds.get("FrameOfReferenceUID") or ""), set()).add(uid)
            else:
                index.others.add(uid)
    except IsDicomdir:
        return
    except (InputError, OSError) as error:
        index.problems.append(str(error) if isinstance(error, InputError) else f"{source.label}: cannot be opened")


def series_of(index: Index, ds: Dataset) -> set[str]:
    """Return the CT series that a Segmentation belongs to: by series, else by images, else by frame of reference."""
    with quiet_pydicom():
        if named := referenced_series(ds) & set(index.series):
            return named
        images = {str(item.get("ReferencedSOPInstanceUID")) for item in _referenced_images(ds)}
        if by_image := {index.images[uid][0] for uid in images if uid in index.images}:
            return by_image
        frame = str(ds.get("FrameOfReferenceUID") or "")
        return set(index.frames.get(frame, ())) if frame else set()


def images_of(index: Index, ds: Dataset) -> set[Path]:
    """Return the files of the images that a Segmentation refers to."""
    with quiet_pydicom():
        images = {str(item.get("ReferencedSOPInstanceUID")) for item in _referenced_images(ds)}
    return {index.images[uid][1] for uid in images if uid in index.images}


def referenced_series(ds: Dataset) -> set[str]:
    """Return the SeriesInstanceUIDs that a Segmentation names."""
    return {str(item.get("SeriesInstanceUID")) for item in ds.get("ReferencedSeriesSequence") or []}


def _referenced_images(ds: Dataset) -> Iterator[Dataset]:
    yield from ds.get("SourceImageSequence") or []
    for series in ds.get("ReferencedSeriesSequence") or []:
        yield from series.get("ReferencedInstanceSequence") or []
    for group in ds.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in group.get("DerivationImageSequence") or []:
            yield from derivation.get("SourceImageSequence") or []
