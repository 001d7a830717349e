"""Write results as a DICOM RT Structure Set: closed contours on the slices, for radiotherapy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING

from lsms_rt.errors import chain_cut

from .dicom_object import MAKER, UTF8, Origin, image_item, making, new_object, save
from .outline import polygons
from .positions import position_of
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from pydicom import Dataset

    from .result import Result

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
# Display colors of the first structures; then again from the first one.
COLORS = ((255, 40, 40), (60, 230, 90), (70, 150, 255), (255, 210, 0), (230, 80, 230), (0, 220, 220))
# characters of ROIDescription, an ST
MAX_TEXT = 1024


@chain_cut
def write_rtstruct(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    engine_digest: str,
    include_text: bool = False,
    not_read: int = 0,
    when: datetime | None = None,
) -> bool:
    """Write the outlines of the masks of one series, with one structure per sentence for which something was found.

    A contour runs along the edges of the pixels, so the area inside is that of the mask.  Each part of a mask in a
    slice is one contour; a hole is joined to it by a cut of no width (the keyhole technique of the standard).

    Args:
        results: Segmentations of DICOM slices, for one sentence or several.
        path: the file to write.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the object.
        include_text: write the sentences into ROIDescription; they may contain a patient's data.
        not_read: number of images of the series that are in no result.  A slice that other sentences have a result for
            is counted as missing without it.
        when: the start of the run, see :func:`lsms_rt.writing.seg.write_seg`.

    Returns:
        Whether the file was written: not if nothing was found.

    Raises:
        InputError: images that are not DICOM, headers without required attributes, results that do not belong together,
            or a file that cannot be written.
        MachineError: the machine failed while writing (disk full).
    """
    with making("a DICOM RT Structure Set"):
        sources = sources_of(list(results), not_read)
        origin = Origin.of(sources, engine_digest, when)
        if not sources.masks.any():
            return False
        save(_object(sources, origin, include_text), path)
    return True


def _object(sources: Sources, origin: Origin, include_text: bool) -> Dataset:
    from pydicom import Dataset
    from pydicom.uid import ImplicitVRLittleEndian

    found = [sentence for sentence in sources.sentences if sentence.found]
    texts = [sentence.description(include_text, MAX_TEXT) for sentence in found]
    pixels = [list(sources.masks.shape), *map(sources.digest, range(len(sources.sentences)))]
    content = [origin.missing, sources.identity, pixels, [sentence.label for sentence in found], texts]
    ds = new_object(sources, origin, RTSTRUCT, "RTSTRUCT", series=content, instance=content)
    ds.StructureSetLabel, ds.StructureSetName = MAKER, origin.statement
    ds.StructureSetDate, ds.StructureSetTime = ds.ContentDate, ds.ContentTime
    del ds.ContentDate, ds.ContentTime
    ds.ApprovalStatus, ds.OperatorsName = "UNAPPROVED", ""
    ds.FrameOfReferenceUID = frame = sources.images[0].FrameOfReferenceUID
    ds.PositionReferenceIndicator = sources.images[0].PositionReferenceIndicator
    ds.ReferencedFrameOfReferenceSequence = [_referenced(sources)]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (sentence, text) in enumerate(zip(found, texts, strict=True), 1):
        roi, contours, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = number, frame, sentence.label
        if text:
            roi.ROIDescription = text
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        contours.ROIDisplayColor = list(COLORS[(number - 1) % len(COLORS)])
        contours.ReferencedROINumber = number
        contours.ContourSequence = [item for result in sentence.found for item in _contours(result)]
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType = observation.ROIInterpreter = ""
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(contours)
        ds.RTROIObservationsSequence.append(observation)
    if not sources.is_ascii(*texts):
        ds.SpecificCharacterSet = UTF8
    ds.ensure_file_meta()
    # An explicit one cannot hold a contour of over 64 KiB.
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return ds


def _contours(result: Result) -> Iterator[Dataset]:
    """Yield the contours of a slice."""
    from pydicom import Dataset

    place = position_of(result.ct.header, result.ct.frame, result.ct.source)
    dy, dx = place.spacing_mm
    for corners in polygons(result.mask):
        # The corner (0, 0) is half a pixel before the center of the first one.
        rows, columns = (corners.T - 0.5)[..., None]
        points = place.origin + columns * dx * place.along_row + rows * dy * place.along_column
        contour = Dataset()
        contour.ContourImageSequence = [image_item(result)]
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(points)
        contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
        yield contour


def _referenced(sources: Sources) -> Dataset:
    """Refer to the frame of reference, the study, the series and all images."""
    from pydicom import Dataset

    frame, study, series = Dataset(), Dataset(), Dataset()
    images, first = [], sources.images[0]
    for image in sources.images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        images.append(item)
    series.SeriesInstanceUID, series.ContourImageSequence = first.SeriesInstanceUID, images
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = DETACHED_STUDY, first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    return frame
