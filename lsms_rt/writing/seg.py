"""Write results as one DICOM Segmentation object, which refers to the images and is overlaid on them by a viewer."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.atomic import atomic_file
from lsms_rt.digest import sha256, sha256_of_json
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN
from lsms_rt.reading.quiet import quiet_pydicom

from .caption import NOT_FOR_DIAGNOSIS, incomplete_text, understood_text
from .headers import TEXTS
from .sources import Sources, sources_of

if TYPE_CHECKING:
    from .result import Result

# above the numbers that scanners use
SERIES_NUMBER = 1000
# characters of SegmentDescription, an ST
MAX_TEXT = 1024
# of the UIDs that are derived from content
NAMESPACE = uuid.UUID("6b6f3e0c-5f0e-4c0a-9a4e-0d5d9b6c7a21")


def write_seg(
    results: Sequence[Result],
    path: str | PathLike[str],
    *,
    engine_digest: str,
    include_text: bool = False,
    write_empty: bool = False,
    not_read: int = 0,
) -> bool:
    """Write the masks of one series, for one sentence, as a binary SEG with one segment.

    The object refers to all slices of ``results`` and has one frame per slice in which something was found.  Patient
    and study are those of the images.  Its UIDs are derived from what it holds: the same results give the same UIDs, so
    that an archive does not collect duplicates.

    Args:
        results: Segmentations of DICOM slices.
        path: the file to write.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the object.
        include_text: write the sentence, and how it is read, into SegmentDescription; it may contain a patient's data.
            That a sentence is not wholly understood stands in SegmentLabel and SegmentDescription anyway.
        write_empty: if nothing was found, write an object with one empty frame, of the first slice.
        not_read: number of images of the series without a result; ContentDescription and SeriesDescription state that
            the object is incomplete.

    Returns:
        Whether the file was written: not if nothing was found, without ``write_empty``.

    Raises:
        InputError: images that are not DICOM, headers without required attributes, results that do not belong together,
            or a file that cannot be written.
        MachineError: the machine failed while writing (disk full).
        MissingDependencyError: highdicom is not installed.
    """
    results = list(results)
    # Messages of pydicom and highdicom contain names and UIDs.
    with quiet_pydicom("highdicom"):
        sources = sources_of(results)
    text = _description(results[0], include_text)
    if not (sources.masks.any() or write_empty):
        return False
    try:
        highdicom: Any = importlib.import_module("highdicom")
    except ImportError as error:
        message = "writing a DICOM SEG needs highdicom; pip install 'lsms-rt[seg]', or write NIfTI or PNG"
        raise MissingDependencyError(message) from error
    with quiet_pydicom("highdicom"):
        try:
            understood = understood_text(results[0].understood)
            seg = _object(highdicom, sources, engine_digest.removeprefix("sha256:"), text, not_read, understood)
            with atomic_file(path, durable=True) as part:
                seg.save_as(part, enforce_file_format=True)
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            # Headers were checked, so this is rare; texts of highdicom and pydicom contain values.
            kind = type(error).__name__
            message = f"a DICOM SEG cannot be made from these headers ({kind}); {EXPORT_AGAIN}, or write NIfTI"
            raise InputError(message) from error
    return True


def _object(
    highdicom: Any, sources: Sources, digest: str, text: str | None, not_read: int, understood: str
) -> Any:  # fmt: skip
    """Build the object in memory; ``digest`` in hexadecimal."""
    incomplete = incomplete_text(not_read)
    content = _content_of(sources, digest, text, incomplete)
    segment = _segment(highdicom, digest, understood)
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
        series_instance_uid=_uid("series", content),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid("instance", content),
        instance_number=1,
        manufacturer="lsms-rt",
        manufacturer_model_name="lsms-rt",
        software_versions=__version__,
        # an LO has 64 characters, which a SHA-256 fits
        device_serial_number=digest[:64] or "unknown",
        plane_positions=positions,
        omit_empty_frames=True,
        content_label="LESION",
        # an LO, too
        content_description="; ".join(filter(None, (incomplete, NOT_FOR_DIAGNOSIS))),
        series_description=", ".join(("lsms-rt", *(("incomplete",) if incomplete else ()), NOT_FOR_DIAGNOSIS)),
    )
    dimensions = _uid("dimensions", content)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    # UTF-8; ASCII is the default, which every reader supports.
    if not _is_ascii(sources, text):
        seg.SpecificCharacterSet = "ISO_IR 192"
    return seg


def _content_of(sources: Sources, digest: str, text: str | None, incomplete: str) -> str:
    """Return a digest of all that makes one object differ from another; of the sentence, only what is in the object."""
    images = [(str(image.SOPInstanceUID), str(image.SeriesInstanceUID)) for image in sources.images]
    pixels = sha256(np.packbits(sources.masks).tobytes())
    return sha256_of_json([__version__, digest, text, incomplete, images, list(sources.masks.shape), pixels])


def _uid(kind: str, content: str) -> str:
    """Return a UID derived from a UUID, as the standard describes them (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{kind} {content}').int}"


def _segment(highdicom: Any, digest: str, understood: str) -> Any:
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
        # Viewers show it.
        segment_label=", ".join(filter(None, ("Lesion", understood))),
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )


def _description(result: Result, include_text: bool) -> str | None:
    """Return the sentence and how it is read, in one line; InputError if it is too long for the attribute."""
    sentence, read_as = " ".join(result.text.split()), result.read_as
    parts = [understood_text(result.understood)]
    if include_text:
        parts = [sentence, *([f"read as: {read_as}"] if read_as not in (sentence, "") else []), *parts]
    line = "; ".join(filter(None, parts))
    if not line:
        return None
    if len(line) > MAX_TEXT:
        limit = f"SegmentDescription holds at most {MAX_TEXT} characters"
        raise InputError(f"a sentence of {len(line)} characters, and {limit}; omit the sentence")
    return line


def _is_ascii(sources: Sources, text: str | None) -> bool:
    """Return whether all copied text and the sentence are ASCII; other text in the object is."""
    texts = (str(sources.images[0].get(name, "")) for name in TEXTS)
    return "".join((*texts, text or "")).isascii()
