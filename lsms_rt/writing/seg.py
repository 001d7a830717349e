"""Write results as one DICOM Segmentation object, which refers to the images and is overlaid on them by a viewer."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from lsms_rt import __version__
from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN
from lsms_rt.reading.dicom.parse import quiet_pydicom

from .headers import TEXTS
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from .result import Result

SERIES_DESCRIPTION = "lsms-rt, research, not for diagnosis"
# above the numbers that scanners use
SERIES_NUMBER = 1000
# characters of SegmentDescription, an ST
MAX_TEXT = 1024


def write_seg(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    engine_digest: str,
    include_text: bool = False,
    write_empty: bool = False,
) -> bool:
    """Write the masks of one series, for one sentence, as a binary SEG with one segment.

    The object refers to all slices of ``results`` and has one frame per slice in which something was found.  Patient
    and study are those of the images.

    Args:
        results: Segmentations of DICOM slices.
        path: the file to write.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the object.
        include_text: write the sentence into SegmentDescription; it may contain a patient's data.
        write_empty: if nothing was found, write an object with one empty frame, of the first slice.

    Returns:
        Whether the file was written: not if nothing was found, without ``write_empty``.

    Raises:
        InputError: images that are not DICOM, headers without required attributes, results that do not belong together,
            or a file that cannot be written.
        MissingDependencyError: highdicom is not installed.
    """
    results = list(results)
    # Messages of pydicom and highdicom contain names and UIDs.
    with quiet_pydicom("highdicom"):
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
            with atomic_file(path) as part:
                seg.save_as(part, enforce_file_format=True)
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            # Headers were checked, so this is rare; texts of highdicom and pydicom contain values.
            kind = type(error).__name__
            message = f"a DICOM SEG cannot be made from these headers ({kind}); {EXPORT_AGAIN}, or write NIfTI"
            raise InputError(message) from error
    return True


def _object(highdicom: Any, sources: Sources, digest: str, text: str | None) -> Any:
    """Build the object in memory; ``digest`` in hexadecimal."""
    segment = _segment(highdicom, digest)
    if text is not None:
        segment.SegmentDescription = text
    masks, positions = sources.masks, None
    # An object needs at least one frame.
    if not masks.any():
        masks = masks[:1]
        positions = [highdicom.PlanePositionSequence("PATIENT", sources.position.origin.tolist())]
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
        # an LO has 64 characters, which a SHA-256 fits
        device_serial_number=digest[:64] or "unknown",
        plane_positions=positions,
        omit_empty_frames=True,
        content_label="LESION",
        content_description="research, not for diagnosis",
        series_description=SERIES_DESCRIPTION,
    )
    # UTF-8; ASCII is the default, which every reader supports.
    if not _is_ascii(sources, text):
        seg.SpecificCharacterSet = "ISO_IR 192"
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
    """Return the sentence in one line; InputError if it is too long for the attribute."""
    line = " ".join(text.split())
    if len(line) > MAX_TEXT:
        limit = f"SegmentDescription holds at most {MAX_TEXT} characters"
        raise InputError(f"a sentence of {len(line)} characters, and {limit}; omit the sentence")
    return line


def _is_ascii(sources: Sources, text: str | None) -> bool:
    """Return whether all copied text and the sentence are ASCII; other text in the object is."""
    texts = (str(sources.images[0].get(name, "")) for name in TEXTS)
    return "".join((*texts, text or "")).isascii()
