"""CT series with DICOM Segmentations: collections of TCIA, a hospital's export, what ``lsms-rt predict --seg`` writes.

The files may lie anywhere below the folder: a Segmentation names the series, the images or the frame of reference that
it belongs to.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.parse import open_dataset
from lsms_rt.reading.dicom.series import read_files

from .labels import LESION, LOBE, ORGAN, OTHER, Role, need_lesions, role_of
from .license import citation_file, license_file
from .nifti import check_hu
from .options import ConvertOptions
from .seg_frames import Segment, masks_of, segments_of
from .seg_index import Index, Series, add_file, images_of, referenced_series, series_of, sources_of
from .source import LesionMask, Source, SourceCase, Volume, source_name


def find_cases(folder: Path, options: ConvertOptions) -> Source:
    """Read the headers of all files, and pair Segmentations with CT series.

    Raises:
        InputError: no CT series, or no Segmentation.
    """
    index = Index()
    for source in sources_of(folder):
        add_file(index, source)
    if not index.series or not index.segmentations:
        counts = f"{len(index.series)} CT series and {len(index.segmentations)} DICOM Segmentations"
        raise InputError(f"{source_name(folder)}: {counts}; give a folder with both, subfolders are searched")
    skipped = 0
    for source, ds in index.segmentations:
        uids = series_of(index, ds)
        if len(uids) == 1:
            series = index.series[uids.pop()]
            series.segmentations.append(source)
            series.referenced |= images_of(index, ds) & set(series.paths)
        elif referenced_series(ds) & index.others:
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
        raise InputError(f"{source_name(folder)}: no Segmentation belongs to a CT series there ({index.problems[0]})")
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


def _read(series: Series, name: str, options: ConvertOptions) -> Volume:
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


def _slices(series: Series, name: str) -> list[CtSlice]:
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


def _names(patients: list[str], shown: bool) -> list[str]:
    """Return a name for every series: a number, or the PatientID where names are shown."""
    if not shown:
        return [f"case_{n:04d}" for n in range(len(patients))]
    plain = [re.sub(r"[^\w.-]+", "_", patient).strip("._") or "patient" for patient in patients]
    return [f"{name}_{plain[:n].count(name) + 1}" if plain.count(name) > 1 else name for n, name in enumerate(plain)]
