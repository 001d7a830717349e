"""Write key images as DICOM Secondary Captures, which every viewer shows: a slice, the outline of a mask, a caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.digest import sha256
from lsms_rt.errors import chain_cut

from .by_sentence import SentenceResults
from .caption import SIDE_UNKNOWN, count_text, incomplete_text, number_text, size_text, slice_name, volume_text
from .dicom_object import UTF8, Origin, image_item, making, new_object, save
from .headers import LOSSY
from .measures import Measures, measures_of
from .outline import is_hole, rings
from .overlay import marked_slice
from .result import Result
from .sources import Sources, sources_of
from .wrap import wrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RESEARCH = "research software, not for diagnosis"
# pixels: along the longer side of the slice; of a line of text; around it
SIDE, LINE, MARGIN = 768, 26, 10
FONT = 20
_WHITE, _YELLOW, _BACKGROUND = (235, 235, 235), (255, 210, 0), (18, 18, 18)
# characters of a sentence in the picture
MAX_TEXT = 1024


@chain_cut
def write_sc(
    results: Sequence[Result],
    path_of: Callable[[int], str | PathLike[str]],
    *,
    engine_digest: str,
    include_text: bool = False,
    not_read: int = 0,
    when: datetime | None = None,
) -> list[int]:
    """Write a key image for each sentence for which something was found: the slice of the largest cross-section.

    The picture is the usual axial view, with R and L if the input states them, and the mask's outline in red.  Burnt in
    are the measures, the slice's InstanceNumber and position, and that it is of research software and not for
    diagnosis; also, if it is so, that the sentence is not wholly understood or the series incomplete.  The image is of
    the patient and study of the slice, to which it refers, in a series of its own, without a pixel spacing.

    Args:
        results: Segmentations of DICOM slices, for one sentence or several.
        path_of: returns the file to write for a sentence, by its number, from 1.
        engine_digest: "sha256:HEX" of the engine (``Segmenter.digest``), written into the object.
        include_text: draw the sentence, which may contain a patient's data.
        not_read: number of images of the series that are in no result.  A slice that other sentences have a result for
            is counted as missing without it.
        when: the start of the run, see :func:`lsms_rt.writing.seg.write_seg`.

    Returns:
        The numbers of the sentences whose files were written: not those for which nothing was found.

    Raises:
        InputError: images that are not DICOM, headers without required attributes, results that do not belong together,
            or a file that cannot be written.
        MachineError: the machine failed while writing (disk full).
    """
    with making("a DICOM Secondary Capture"):
        sources = sources_of(list(results), not_read)
        origin = Origin.of(sources, engine_digest, when)
        found = [sentence for sentence in sources.sentences if sentence.found]
        pictures, shown = [], []
        for sentence in found:
            measures = measures_of(sentence.results, complete=not sentence.missing)
            # What is missing has a line of its own.
            text = replace(sentence, missing=0).description(True, MAX_TEXT) if include_text else ""
            pictures.append(_picture(measures, _lines(sentence, measures, text)))
            shown.append(measures.largest)
        series = [origin.missing, sources.identity, [sha256(picture.tobytes()) for picture in pictures]]
        for number, (sentence, picture, result) in enumerate(zip(found, pictures, shown, strict=True), 1):
            save(_object(sources, origin, series, number, picture, result), path_of(sentence.number))
    return [sentence.number for sentence in found]


def _lines(sentence: SentenceResults[Result], measures: Measures[Result], text: str) -> list[str]:
    """Return what is told below the picture, but for the warning."""
    ct = measures.largest.ct
    mask = measures.largest.mask
    parts = sum(not is_hole(ring) for ring in rings(mask))
    sizes = [size_text(int(mask.sum()), measures.area_mm2) + (f" in {parts} parts" if parts > 1 else "")]
    if measures.diameter_mm is not None:
        sizes.append(f"long axis {number_text(measures.diameter_mm)} mm")
    if measures.volume_ml is not None:
        sizes.append(volume_text(measures.volume_ml))
    sizes.append(f"mean {measures.mean_hu:.0f} HU")
    side = "" if ct.side_known else SIDE_UNKNOWN
    lines = (
        f"{sentence.label}: {', '.join(sizes)}",
        text,
        ": ".join(filter(None, ("Largest cross-section", slice_name(ct)))),
        count_text(len(sentence.found), len(sentence.results)).capitalize(),
        incomplete_text(sentence.missing).capitalize(),
        side.capitalize(),
    )
    return [line for line in lines if line]


def _picture(measures: Measures[Result], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the slice and the text; uint8 (rows, columns, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    ct = measures.largest.ct
    mask = ct.to_model_frame(measures.largest.mask, ct.flips, ct.transposed)
    picture = marked_slice(ct.hu, mask, ct.spacing_mm, SIDE, tint=0.0)
    font = ImageFont.load_default(size=FONT)
    rows, columns = len(picture), SIDE
    below = [(RESEARCH.capitalize(), _YELLOW)]
    below += [(part, _WHITE) for line in lines for part in wrapped(line, font, columns - 2 * MARGIN)]
    canvas = Image.new("RGB", (columns, rows + 2 * MARGIN + len(below) * LINE), _BACKGROUND)
    left = (columns - picture.shape[1]) // 2
    canvas.paste(Image.fromarray(picture), (left, 0))
    draw = ImageDraw.Draw(canvas)
    for letter, x in (("R", left + MARGIN), ("L", left + picture.shape[1] - 2 * FONT)) if ct.side_known else ():
        draw.text((x, rows // 2), letter, font=font, fill=_WHITE, stroke_width=2, stroke_fill=(0, 0, 0))
    for number, (line, color) in enumerate(below):
        draw.text((MARGIN, rows + MARGIN + number * LINE), line, font=font, fill=color)
    return np.asarray(canvas)


def _object(
    sources: Sources, origin: Origin, series: list[object], number: int, picture: NDArray[np.uint8], result: Result
) -> Dataset:  # fmt: skip
    """Build the object that holds picture ``number`` of its series, of a slice."""
    from pydicom.uid import ExplicitVRLittleEndian

    ds = new_object(sources, origin, SECONDARY_CAPTURE, "OT", series=series, instance=[series, number])
    ds.InstanceNumber = number
    # required of a series that does not say which body part it shows; may be empty
    ds.Laterality = ""
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = "slice with the outline of what was found, and a caption"
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.BurnedInAnnotation = "YES"
    # the usual axial view
    ds.PatientOrientation = ["L", "P"] if result.ct.side_known else ""
    ds.ImageComments = origin.statement
    ds.SourceImageSequence = [image_item(result)]
    for name in LOSSY:
        if name in sources.images[0]:
            setattr(ds, name, sources.images[0][name].value)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    pixels = picture.tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    if not sources.is_ascii():
        ds.SpecificCharacterSet = UTF8
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
