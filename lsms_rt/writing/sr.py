"""Write the measures of results as a DICOM structured report: a Measurement Report, TID 1500."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.errors import InputError, chain_cut

from .caption import NOTHING_FOUND
from .dicom_object import MAKER, SERIES_NUMBERS, UTF8, Origin, derived_uid, highdicom_for, image_reference, making, save
from .measures import Measures, longest_line, measures_of
from .outline import polygons
from .seg import tracking_uid
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from .result import Result

# characters of a sentence in a report
MAX_TEXT = 4096
# of measures: decimals; significant digits of small ones
DECIMALS, DIGITS = 2, 3


@chain_cut
def write_sr(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    seg: str | PathLike[str] | None,
    engine_digest: str,
    include_text: bool = False,
    not_read: int = 0,
    when: datetime | None = None,
) -> None:
    """Write a report with one measurement group for each sentence for which something was found.

    A group has the finding "Lesion", a reference to its segment and to the slices, and the measures of
    :func:`lsms_rt.writing.measures.measures_of`: volume (where it is known), largest diameter within a slice ("Long
    Axis"), area of the largest cross-section, and mean HU; the diameter's line and the cross-section's outline are in
    it, since viewers draw them.  It has the tracking identifier and UID of the segment.

    Of another sentence, a qualitative evaluation states "All algorithms succeeded; without findings", or "Not all ..."
    for an incomplete series: what was asked, and that nothing was found, which is not that nothing is there.  It is no
    measurement group: OHIF shows no group at all of a report in which one has no coordinates.

    The report is unverified, preliminary, and partial if the series is incomplete; it says that it is not for
    diagnosis.  Its UIDs are derived from what it holds, as in :func:`lsms_rt.writing.seg.write_seg`.

    Args:
        results: Segmentations of DICOM slices, for one sentence or several.
        path: the file to write.
        seg: the file that ``write_seg`` wrote of the same results; None if nothing was found, so that there is none.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the report.
        include_text: write the sentences, and how they are read; they may contain a patient's data.  That a sentence is
            not wholly understood is written anyway.
        not_read: number of images of the series that are in no result.  A slice that other sentences have a result for
            is counted as missing without it.
        when: the start of the run, see ``write_seg``.

    Raises:
        InputError: as for ``write_seg``; or ``seg`` is not the Segmentation of these results.
        MachineError: the machine failed while writing (disk full).
        MissingDependencyError: highdicom is not installed.
    """
    with making("a DICOM SR"):
        sources = sources_of(list(results), not_read)
        origin = Origin.of(sources, engine_digest, when)
        texts = [sentence.description(include_text, MAX_TEXT) for sentence in sources.sentences]
        highdicom = highdicom_for("a DICOM SR")
        segmentation = None if seg is None else _read_seg(seg)
        save(_report(highdicom, sources, origin, segmentation, texts), path)


def _read_seg(path: str | PathLike[str]) -> Dataset:
    """Read what identifies a Segmentation and its segments."""
    from pydicom import dcmread

    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SegmentSequence")
    try:
        seg = dcmread(path, stop_before_pixels=True, specific_tags=list(names))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"the DICOM SEG of a report cannot be read ({reason}); write it first") from error
    missing = [name for name in names if name not in seg]
    if missing:
        raise InputError(f"the DICOM SEG of a report has no {missing[0]}; give the file that write_seg wrote")
    return seg


def _group(sr: Any, sources: Sources, n: int, origin: Origin, seg: Dataset | None, text: str) -> Any:
    """Build the measurement group of sentence ``n``; ``text`` is told of the sentence."""
    from pydicom.sr.codedict import codes

    sentence = sources.sentences[n]
    uid = tracking_uid(sources, n, origin.engine_digest)
    algorithm = sr.AlgorithmIdentification(
        name=MAKER,
        version=__version__,
        parameters=[f"engine {origin.engine_digest}"] if origin.engine_digest else None,
    )
    segment = _segment_number(seg, uid)
    assert seg is not None
    measured = _measurements(sr, sentence.results, complete=not sentence.missing)
    images = [sr.SourceImageForSegmentation(*image_reference(result)) for result in sentence.found]
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=sentence.name),
        referenced_segment=sr.ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, segment_number=segment, source_images=images
        ),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=codes.SCT.Lesion,
        algorithm_id=algorithm,
        measurements=[measurement for measurement, _ in measured],
    )
    # The template of a segmented region has no place for them, but it is extensible, and highdicom only refuses them
    # while a group is made.
    for measurement, lines in measured:
        if lines:
            # It has items already: its derivation.
            measurement[0].ContentSequence.extend(lines)
    # Viewers show it as the group's title.
    group[0].ContentSequence.append(_comment(sr, ": ".join(filter(None, (sentence.name, text)))))
    return group


def _no_group(sr: Any) -> Any:
    """Build a group of nothing, in the place of one that highdicom asks for."""
    nothing = sr.TrackingIdentifier(uid="2.25.0", identifier="nothing")
    return sr.MeasurementsAndQualitativeEvaluations(tracking_identifier=nothing)


def _nothing_found(sr: Any, sources: Sources, texts: Sequence[str]) -> Any:
    """Build the container of qualitative evaluations: a summary and a comment per sentence without a finding."""
    from pydicom.sr.codedict import codes

    container = sr.ContainerContentItem(
        sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"), relationship_type="CONTAINS"
    )
    container.ContentSequence = sr.ContentSequence()
    for sentence, text in zip(sources.sentences, texts, strict=True):
        if sentence.found:
            continue
        summary = codes.DCM.AllAlgorithmsSucceededWithoutFindings
        if sentence.missing:
            summary = codes.DCM.NotAllAlgorithmsSucceededWithoutFindings
        name = f"{sentence.name}, {NOTHING_FOUND}"
        container.ContentSequence += [
            sr.CodeContentItem(codes.DCM.CADProcessingAndFindingsSummary, summary, relationship_type="CONTAINS"),
            _comment(sr, ": ".join(filter(None, (name, text)))),
        ]
    return container


def _segment_number(seg: Dataset | None, uid: str) -> int:
    """Return the number of the segment with a TrackingUID."""
    if seg is None:
        raise InputError("a report of something found needs its DICOM SEG; write it first, and give its path")
    for item in seg.SegmentSequence:
        if item.get("TrackingUID") == uid:
            return int(item.SegmentNumber)
    raise InputError("the DICOM SEG is of other results; give the file that write_seg wrote of the same ones")


def _measurements(sr: Any, results: Sequence[Result], complete: bool) -> list[tuple[Any, list[Any]]]:
    """Return the measurements, each with the lines in an image that it was measured on."""
    from pydicom.sr.codedict import codes

    measures = measures_of(results, complete=complete)
    unit, maximum = codes.UCUM, codes.SCT.Maximum
    # a cm3 is a ml
    rows: list[tuple[Any, float | None, Any, Any, list[Any]]] = [
        (codes.SCT.Volume, measures.volume_ml, unit.CubicCentimeter, None, []),
        (codes.SCT.LongAxis, measures.diameter_mm, unit.Millimeter, maximum, _diameter(sr, measures)),
        (codes.SCT.Area, measures.area_mm2, unit.SquareMillimeter, maximum, _outlines(sr, measures)),
        (codes.DCM.AttenuationCoefficient, measures.mean_hu, unit.HounsfieldUnit, codes.SCT.Mean, []),
    ]
    return [
        (sr.Measurement(name, _rounded(value), unit, derivation=derivation), lines)
        for name, value, unit, derivation, lines in rows
        if value is not None
    ]


def _rounded(value: float) -> float:
    """Round a measure; a small one keeps its digits, since what was found has no volume of 0."""
    if value == 0:
        return 0.0
    return round(value, max(DECIMALS, DIGITS - 1 - math.floor(math.log10(abs(value)))))


def _diameter(sr: Any, measures: Measures[Result]) -> list[Any]:
    """Return the line of the largest diameter, in its image; none if it is unknown."""
    ct = measures.longest.ct
    if ct.spacing_mm is None:
        return []
    dy, dx = ct.spacing_mm
    line = longest_line(measures.longest.mask, (dx, dy) if ct.transposed else (dy, dx))
    return [_polyline(sr, measures.longest, line)]


def _outlines(sr: Any, measures: Measures[Result]) -> list[Any]:
    """Return the closed outlines of all parts of the largest cross-section, or its image if it is not the diameter's.

    OHIF draws all lines of a group in the image of the first one, and of a measurement only the first, hence the
    longest one.
    """
    if measures.largest is not measures.longest:
        return [sr.SourceImageForMeasurement(*image_reference(measures.largest))]
    closed = [np.concatenate([corners, corners[:1]]) for corners in polygons(measures.largest.mask)]
    closed.sort(key=lambda corners: -float(np.abs(np.diff(corners, axis=0)).sum()))
    return [_polyline(sr, measures.largest, corners) for corners in closed]


def _polyline(sr: Any, result: Result, points: NDArray[Any]) -> Any:
    """Return points (N, 2) of an image, row and column from the upper left corner of its first pixel."""
    image = sr.SourceImageForRegion(*image_reference(result))
    return sr.CoordinatesForMeasurement("POLYLINE", points[:, ::-1].astype(np.float64), image)


def _comment(sr: Any, text: str) -> Any:
    from pydicom.sr.codedict import codes

    return sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type="CONTAINS")


def _report(highdicom: Any, sources: Sources, origin: Origin, seg: Dataset | None, texts: list[str]) -> Any:
    from pydicom.sr.codedict import codes

    sr = highdicom.sr
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", origin.engine_digest),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=f"{MAKER} {__version__}",
        serial_number=origin.serial_number,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    found = [n for n, sentence in enumerate(sources.sentences) if sentence.found]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[_group(sr, sources, n, origin, seg, texts[n]) for n in found] or [_no_group(sr)],
    )
    content = report[0].ContentSequence
    if not found:
        # The template allows a report of evaluations alone, highdicom does not.
        del content[[item.name for item in content].index(codes.DCM.ImagingMeasurements)]
    if len(found) < len(sources.sentences):
        content.append(_nothing_found(sr, sources, texts))
    content.append(_comment(sr, origin.statement))
    evidence = [*sources.images, *([] if seg is None else [seg])]
    identity = [
        origin.engine_digest, origin.missing, texts, sources.identity,
        report[0].to_json_dict(suppress_invalid_tags=True),
    ]  # fmt: skip
    made = sr.Comprehensive3DSR(
        evidence=evidence,
        content=report[0],
        series_instance_uid=derived_uid("SR series", *identity),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=derived_uid("SR instance", *identity),
        instance_number=1,
        **origin.equipment,
        series_description=origin.series_description,
        is_complete=not origin.missing,
        is_final=False,
        is_verified=False,
    )
    if origin.incomplete:
        made.CompletionFlagDescription = origin.incomplete
    # ASCII is the default, which every reader supports.
    if not sources.is_ascii(*texts):
        made.SpecificCharacterSet = UTF8
    origin.date(made)
    return made
