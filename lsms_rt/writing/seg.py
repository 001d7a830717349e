"""Write results as one DICOM Segmentation object, which refers to the images and is overlaid on them by a viewer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

from lsms_rt import __version__
from lsms_rt.errors import InputError, chain_cut

from .dicom_object import MAKER, SERIES_NUMBERS, UTF8, Origin, derived_uid, highdicom_for, making, save
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from .result import Result

SegType = Literal["binary", "labelmap"]
SEG_TYPES: tuple[str, ...] = get_args(SegType)
# characters of SegmentDescription, an ST
MAX_TEXT = 1024


@chain_cut
def write_seg(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    engine_digest: str,
    include_text: bool = False,
    write_empty: bool = False,
    not_read: int = 0,
    seg_type: SegType = "binary",
    when: datetime | None = None,
) -> bool:
    """Write the masks of one series as a SEG, with one segment per sentence for which something was found.

    The object refers to all slices of ``results`` and has one frame per segment and slice in which something was found.
    Patient and study are those of the images.  Its UIDs are derived from what it holds: the same results give the same
    UIDs, so that an archive does not collect duplicates; with the same ``when``, they give the same file.

    Segments are numbered from 1 in the order of their sentences.  The one of a single sentence is labeled "Lesion"; of
    several, "Lesion 2" is the second sentence's, also where the first one has no segment.  TrackingID is that name,
    TrackingUID is the same in :func:`write_sr`.

    Args:
        results: Segmentations of DICOM slices, for one sentence or several.
        path: the file to write.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the object.
        include_text: write the sentences, and how they are read, into SegmentDescription; they may contain a patient's
            data.  That a sentence is not wholly understood stands in SegmentLabel and SegmentDescription anyway.
        write_empty: sentences for which nothing was found also have a segment, labeled "nothing found", without frames.
            If nothing was found at all, each has one empty frame, of the first slice.
        not_read: number of images of the series that are in no result.  With a slice that only other sentences have a
            result for, they are what is missing of a sentence: SegmentDescription, ContentDescription and
            SeriesDescription state that the object is incomplete.
        seg_type: "binary", which every viewer reads and where segments may overlap; "labelmap", one frame per slice.
        when: the start of the run: dates and times of the object, in the zone's own clock.  None for now.

    Returns:
        Whether the file was written: not if nothing was found, without ``write_empty``.

    Raises:
        InputError: images that are not DICOM, headers without required attributes, results that do not belong together,
            segments of a label map that overlap, or a file that cannot be written.
        MachineError: the machine failed while writing (disk full).
        MissingDependencyError: highdicom is not installed.
    """
    if seg_type not in SEG_TYPES:
        raise InputError(f"a DICOM SEG of another type; choose {' or '.join(SEG_TYPES)}")
    # Messages of pydicom and highdicom contain names and UIDs.
    with making("a DICOM SEG"):
        sources = sources_of(list(results), not_read)
        origin = Origin.of(sources, engine_digest, when)
        chosen = [n for n, sentence in enumerate(sources.sentences) if sentence.found or write_empty]
        texts = [sources.sentences[n].description(include_text, MAX_TEXT) for n in chosen]
        if not chosen:
            return False
        if seg_type == "labelmap":
            _check_overlap(sources, chosen)
        save(_object(highdicom_for("a DICOM SEG"), sources, origin, chosen, texts, seg_type), path)
    return True


def tracking_uid(sources: Sources, n: int, engine_digest: str) -> str:
    """Return the TrackingUID of what was found for sentence ``n``, from 0: equal in all objects of these results."""
    return derived_uid(
        "tracking", engine_digest, sources.sentences[n].number, sources.uids, sources.asked(n), sources.digest(n)
    )


def _object(
    highdicom: Any, sources: Sources, origin: Origin, chosen: list[int], texts: list[str], seg_type: SegType
) -> Any:  # fmt: skip
    """Build the object, with segments of the ``chosen`` sentences, in memory."""
    # without a copy, if it can be
    masks = sources.masks if len(chosen) == len(sources.sentences) else sources.masks[..., chosen]
    positions = None
    segments = [_segment(highdicom, sources, n, number, origin) for number, n in enumerate(chosen, 1)]
    for segment, text in zip(segments, texts, strict=True):
        if text:
            segment.SegmentDescription = text
    labels = [segment.SegmentLabel for segment in segments]
    pixels = [list(masks.shape), *map(sources.digest, chosen)]
    texts_of = [labels, texts, origin.incomplete]
    content = [origin.engine_digest, seg_type, *texts_of, sources.identity, pixels]
    # An object needs at least one frame.
    if not masks.any():
        masks = masks[:1]
        positions = [highdicom.PlanePositionSequence("PATIENT", sources.position.origin.tolist())]
    seg = highdicom.seg.Segmentation(
        sources.images,
        masks,
        segmentation_type=seg_type.upper(),
        segment_descriptions=segments,
        series_instance_uid=derived_uid("series", *content),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=derived_uid("instance", *content),
        instance_number=1,
        **origin.equipment,
        plane_positions=positions,
        omit_empty_frames=True,
        content_label="LESION",
        content_description=origin.statement,
        series_description=origin.series_description,
    )
    origin.date(seg)
    dimensions = derived_uid("dimensions", *content)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    # ASCII is the default, which every reader supports.
    if not sources.is_ascii(*texts):
        seg.SpecificCharacterSet = UTF8
    return seg


def _segment(highdicom: Any, sources: Sources, n: int, number: int, origin: Origin) -> Any:
    """Describe segment ``number``, of sentence ``n``."""
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MAKER,
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        source=MAKER,
        parameters={"engine": origin.engine_digest} if origin.engine_digest else None,
    )
    sentence = sources.sentences[n]
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        # Viewers show it.
        segment_label=sentence.label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_id=sentence.name,
        tracking_uid=tracking_uid(sources, n, origin.engine_digest),
    )


def _check_overlap(sources: Sources, chosen: list[int]) -> None:
    """Raise InputError if any two segments share a pixel."""
    for one, other in combinations(chosen, 2):
        both = sources.masks[..., one] & sources.masks[..., other]
        if both.any():
            names = [sources.sentences[n].name for n in (one, other)]
            slices = int(both.any((1, 2)).sum())
            raise InputError(
                f"{names[0]} and {names[1]} overlap in {slices} slice{'s' * (slices > 1)}, which a label map "
                "cannot hold; write a binary DICOM SEG"
            )
