"""Results -> one DICOM Segmentation object, which refers to the images and lies over them in a viewer."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from lsms_rt import __version__
from lsms_rt.atomic import whole
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.reading.dicom.parse import quiet_pydicom

from .headers import TEXTS
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from .result import Result

SERIES_DESCRIPTION = "lsms-rt, research, not for diagnosis"
SERIES_NUMBER = 1000  # beyond those that scanners give
MAX_TEXT = 1024  # characters of SegmentDescription, an ST


def write_seg(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    engine_digest: str,
    include_text: bool = False,
    write_empty: bool = False,
) -> bool:
    """Write the masks of one series, of one sentence, as a binary SEG with one segment; returns whether it was written.

    ``results``: Segmentations.  The object refers to all their slices and has a frame for each where something was
    found.  If nothing was found, nothing is written, or with ``write_empty`` an object whose only frame, of the first
    slice, is empty.  ``engine_digest`` ("sha256:HEX", ``Segmenter.digest``) says which engine answered.
    ``include_text`` puts the sentence into SegmentDescription: it may hold patient data.  Patient and study are the
    images' own.

    Raises ``InputError`` for images that are not DICOM, headers that lack what a SEG cannot do without, results that
    do not belong together, and a place that cannot be written to; ``MissingDependencyError`` without highdicom.
    """
    results = list(results)
    with quiet_pydicom("highdicom"):  # their texts hold names and UIDs
        sources = sources_of(results)
    text = _description(results[0].text) if include_text else None
    if not (sources.masks.any() or write_empty):
        return False
    try:
        highdicom: Any = importlib.import_module("highdicom")
    except ImportError as error:
        message = "writing a DICOM SEG needs highdicom; pip install 'lsms-rt[seg]', or write NIfTI or PNG"
        raise MissingDependencyError(message) from error
    with quiet_pydicom("highdicom"):
        try:
            seg = _object(highdicom, sources, engine_digest.removeprefix("sha256:"), text)
            with whole(path) as part:
                seg.save_as(part, enforce_file_format=True)
        except (LsmsError, MemoryError):
            raise
        except Exception as error:  # what was checked does not fail; texts of highdicom and pydicom hold values
            kind = type(error).__name__
            raise InputError(f"no DICOM SEG can be made of these headers ({kind}); export the series again") from error
    return True


def _object(highdicom: Any, sources: Sources, digest: str, text: str | None) -> Any:
    """The object in memory; ``digest`` in hexadecimal."""
    segment = _segment(highdicom, digest)
    if text is not None:
        segment.SegmentDescription = text
    masks, places = sources.masks, None
    if not masks.any():  # an object must have a frame: one is enough
        masks = masks[:1]
        places = [highdicom.PlanePositionSequence("PATIENT", sources.place.origin.tolist())]
    seg = highdicom.seg.Segmentation(
        sources.images,
        masks,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="lsms-rt",
        manufacturer_model_name="lsms-rt",
        software_versions=__version__,
        device_serial_number=digest[:64] or "unknown",  # of an LO; a SHA-256 fits
        plane_positions=places,
        omit_empty_frames=True,
        content_label="LESION",
        content_description="research, not for diagnosis",
        series_description=SERIES_DESCRIPTION,
    )
    if not _is_ascii(sources, text):
        seg.SpecificCharacterSet = "ISO_IR 192"  # UTF-8; ASCII needs no mention, and every reader knows it
    return seg


def _segment(highdicom: Any, digest: str) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="lsms-rt",
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        source="lsms-rt",
        parameters={"engine": f"sha256:{digest}"} if digest else None,
    )
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )


def _description(text: str) -> str:
    """The sentence in one line; InputError if it is longer than the attribute may be."""
    line = " ".join(text.split())
    if len(line) > MAX_TEXT:
        raise InputError(f"a sentence of {len(line)} characters; a SEG describes a segment in {MAX_TEXT}, leave it out")
    return line


def _is_ascii(sources: Sources, text: str | None) -> bool:
    """Whether all text that is taken over, and the sentence, are; highdicom's and ours is."""
    texts = (str(sources.images[0].get(name, "")) for name in TEXTS)
    return "".join((*texts, text or "")).isascii()
