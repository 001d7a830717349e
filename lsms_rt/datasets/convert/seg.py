"""CT series with DICOM Segmentations: collections of TCIA, a hospital's export, what ``lsms-rt predict --seg`` writes.

The files may lie anywhere below the folder: a Segmentation names the series, the images or the frame of reference that
it belongs to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.privacy import label
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN
from lsms_rt.reading.dicom.parse import IsDicomdir, looks_like_dicom, open_dataset, quiet_pydicom
from lsms_rt.reading.dicom.read import is_ct_class
from lsms_rt.reading.dicom.series import read_files
from lsms_rt.reading.dicom.source import FileSource, is_visible

from .labels import LESION, LOBE, ORGAN, OTHER, Role, need_lesions, role_of
from .license import citation_file, license_file
from .nifti import check_hu
from .options import ConvertOptions
from .seg_frames import Segment, masks_of, segments_of
from .source import LesionMask, Source, SourceCase, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

# Segmentation Storage; .7 is Label Map Segmentation Storage
_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@dataclass
class _Series:
    """The CT images of one series, and the Segmentations that belong to it."""

    patient: str
    paths: list[Path] = field(default_factory=list)
    segmentations: list[FileSource] = field(default_factory=list)
    # Those that a Segmentation refers to.
    referenced: set[Path] = field(default_factory=set)


@dataclass
class _Index:
    """All DICOM files of a folder, by their headers."""

    series: dict[str, _Series] = field(default_factory=dict)
    # SOPInstanceUID -> SeriesInstanceUID, and the file
    images: dict[str, tuple[str, Path]] = field(default_factory=dict)
    # FrameOfReferenceUID -> SeriesInstanceUIDs
    frames: dict[str, set[str]] = field(default_factory=dict)
    # Series of other modalities; their Segmentations are none of ours.
    others: set[str] = field(default_factory=set)
    segmentations: list[tuple[FileSource, Dataset]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_cases(folder: Path, options: ConvertOptions) -> Source:
    """Read the headers of all files, and pair Segmentations with CT series.

    Raises:
        InputError: no CT series, or no Segmentation.
    """
    index = _Index()
    for source in _sources(folder):
        _add(index, source)
    if not index.series or not index.segmentations:
        counts = f"{len(index.series)} CT series and {len(index.segmentations)} DICOM Segmentations"
        raise InputError(f"{folder}: {counts}; give a folder with both, subfolders are searched")
    skipped = 0
    for source, ds in index.segmentations:
        uids = _series_of(index, ds)
        if len(uids) == 1:
            series = index.series[uids.pop()]
            series.segmentations.append(source)
            series.referenced |= _images_of(index, ds) & set(series.paths)
        elif _referenced_series(ds) & index.others:
            skipped += 1
        else:
            found = f"{len(uids)} of them" if uids else "none of them"
            index.problems.append(f"{source.label}: belongs to one CT series, {found} is in the folder; add the images")
    used = {uid: series for uid, series in index.series.items() if series.segmentations}
    order = sorted(used, key=lambda uid: (used[uid].patient, uid))
    names = _names([used[uid].patient for uid in order], options.names)
    notes = [f"{len(used)} of {len(index.series)} CT series have a Segmentation; the others are not used"]
    if skipped:
        notes.append(f"{skipped} Segmentations of other modalities are not used")
    if not used:
        raise InputError(f"{folder}: no Segmentation belongs to a CT series there ({index.problems[0]})")
    return Source(
        cases=[
            SourceCase(case_id=name, patient=used[uid].patient, read=partial(_read, used[uid], name, options))
            for name, uid in zip(names, order, strict=True)
        ],
        license=license_file(folder),
        citation=citation_file(folder),
        notes=tuple(notes if len(used) < len(index.series) or skipped else ()),
        problems=tuple(index.problems),
    )


def _read(series: _Series, name: str, options: ConvertOptions) -> Volume:
    slices = _slices(series, name)
    check_hu(slices, name)
    lesions: list[LesionMask] = []
    areas: dict[str, dict[str, np.ndarray]] = {ORGAN: {}, LOBE: {}}
    found: dict[str, Role] = {}
    for source in series.segmentations:
        ds = open_dataset(source).ds
        roles = {one.number: _role(one, options) for one in segments_of(ds, source.label)}
        found |= {one.label: roles[one.number] for one in segments_of(ds, source.label)}
        wanted = {number for number, role in roles.items() if role.kind in (LESION, ORGAN, LOBE)}
        for number, mask in masks_of(ds, wanted, slices, source.label).items():
            role = roles[number]
            if role.kind == LESION:
                lesions.append(LesionMask(mask, role.name))
            else:
                areas[role.kind][role.name] = areas[role.kind].get(role.name, False) | mask
    need_lesions(found, found.values(), "its Segmentations")
    types = tuple(sorted({one.type for one in lesions if one.type}))
    return Volume(slices=slices, lesions=lesions, organs=areas[ORGAN], lobes=areas[LOBE], types=types)


def _slices(series: _Series, name: str) -> list[CtSlice]:
    try:
        return read_files(series.paths, name)
    except InputError:
        if not series.referenced or series.referenced == set(series.paths):
            raise
    # Several stacks, or phases at the same positions: the Segmentation knows which one it was drawn on.
    return read_files(sorted(series.referenced), name)


def _role(segment: Segment, options: ConvertOptions) -> Role:
    """Return what a segment is taken for: by its label, and where that says nothing, by the standard's code."""
    role = role_of(segment.label, options.lesion_labels, options.organ_labels)
    if role.kind != OTHER:
        return role
    by_code = role_of(segment.meaning)
    # Where the user has named the labels, codes do not add others.
    named = {LESION: options.lesion_labels, ORGAN: options.organ_labels}.get(by_code.kind, ())
    return role if named else by_code


def _sources(folder: Path) -> Iterator[FileSource]:
    """Yield all visible files in order; collections have more files than a series may have."""
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    visible = sorted(path for path in paths if is_visible(path.relative_to(folder).parts))
    for n, path in enumerate(visible, 1):
        yield FileSource(path, label(path, f"file {n} of {len(visible)}"))


def _add(index: _Index, source: FileSource) -> None:
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
                index.series.setdefault(uid, _Series(patient)).paths.append(source.path)
                index.images[str(ds.get("SOPInstanceUID") or "")] = uid, source.path
                index.frames.setdefault(str(ds.get("FrameOfReferenceUID") or ""), set()).add(uid)
            else:
                index.others.add(uid)
    except IsDicomdir:
        return
    except (InputError, OSError) as error:
        index.problems.append(str(error) if isinstance(error, InputError) else f"{source.label}: cannot be opened")


def _series_of(index: _Index, ds: Dataset) -> set[str]:
    """Return the CT series that a Segmentation belongs to: by series, else by images, else by frame of reference."""
    with quiet_pydicom():
        if named := _referenced_series(ds) & set(index.series):
            return named
        images = {str(item.get("ReferencedSOPInstanceUID")) for item in _referenced_images(ds)}
        if by_image := {index.images[uid][0] for uid in images if uid in index.images}:
            return by_image
        frame = str(ds.get("FrameOfReferenceUID") or "")
        return set(index.frames.get(frame, ())) if frame else set()


def _images_of(index: _Index, ds: Dataset) -> set[Path]:
    """Return the files of the images that a Segmentation refers to."""
    with quiet_pydicom():
        images = {str(item.get("ReferencedSOPInstanceUID")) for item in _referenced_images(ds)}
    return {index.images[uid][1] for uid in images if uid in index.images}


def _referenced_series(ds: Dataset) -> set[str]:
    return {str(item.get("SeriesInstanceUID")) for item in ds.get("ReferencedSeriesSequence") or []}


def _referenced_images(ds: Dataset) -> Iterator[Dataset]:
    yield from ds.get("SourceImageSequence") or []
    for series in ds.get("ReferencedSeriesSequence") or []:
        yield from series.get("ReferencedInstanceSequence") or []
    for group in ds.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in group.get("DerivationImageSequence") or []:
            yield from derivation.get("SourceImageSequence") or []


def _names(patients: list[str], shown: bool) -> list[str]:
    """Return a name for every series: a number, or the PatientID where names are shown."""
    if not shown:
        return [f"case_{n:04d}" for n in range(len(patients))]
    plain = [re.sub(r"[^\w.-]+", "_", patient).strip("._") or "patient" for patient in patients]
    return [f"{name}_{plain[:n].count(name) + 1}" if plain.count(name) > 1 else name for n, name in enumerate(plain)]
