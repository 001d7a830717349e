"""A data set in the RefHL-Seg layout -> training slices on the model's grid.

What the sentences of a slice mean is known as masks.  Training looks at regions: the pieces into which all masks of a
slice cut it, so that every sentence means whole regions, and two lesions that touch nowhere are two regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import HU_MIN, CtSlice
from lsms_rt.datasets.questions import mask_in_grid
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.preprocess import resize
from lsms_rt.privacy import named
from lsms_rt.reading.load import load_slice

from .slices import MAX_REGIONS, Asked, SliceRecord, Writer, is_complete


def write_dataset_slices(folder: Path, table: str, rows: Sequence[Annotation], size: int, title: str) -> None:
    """Read every image and mask of ``rows`` once into ``folder``; a folder that is complete is left as it is.

    Args:
        folder: where to write, see :mod:`.slices`.
        table: how messages call the data set.
        rows: of one split.
        size: side of the model's input for a whole slice, pixels.
        title: of the progress bar.

    Raises:
        DatasetError: images or masks cannot be used; the error lists all of them with their lines.
    """
    from tqdm import tqdm

    if is_complete(folder):
        return
    groups: dict[Path, list[Annotation]] = {}
    for row in rows:
        groups.setdefault(row.image, []).append(row)
    writer = Writer(folder, len(groups), size, organs=False)
    problems: list[str] = []
    for image, group in tqdm(groups.items(), desc=title, unit="slice", disable=None):
        try:
            ct = load_slice(image)
        except InputError as error:
            problems.append(f"line {group[0].line}: {named('image', image.name)}: {error}")
            continue
        masks = []
        for row in group:
            try:
                masks.append(_mask(ct, row))
            except InputError as error:
                problems.append(str(error))
        if problems:
            # The rest is read only to report all problems at once.
            continue
        hu, index, asked = slice_of(ct, masks, [row.sentence for row in group], size)
        name = f"{group[0].case_id}/{group[0].slice_id}"
        record = SliceRecord(case=group[0].case_id, name=name, asked=asked, regions=int(index.max()))
        writer.add(record, hu=hu, index=index)
    if problems:
        raise DatasetError(table, problems, len(rows))
    writer.close(complete=False)


def slice_of(
    ct: CtSlice, masks: Sequence[np.ndarray], sentences: Sequence[str], size: int
) -> tuple[np.ndarray, np.ndarray, tuple[Asked, ...]]:
    """One slice on a square grid.

    Args:
        ct: the slice.
        masks: bool (H, W) in the slice's model frame, one per sentence.
        sentences: what each mask shows.
        size: side of the grid.

    Returns:
        HU int16 (size, size), region numbers uint8 (size, size), and the sentences with the regions that they mean.
    """
    regions = cut_into_regions(masks, ct.hu.shape)
    square_hu = _square(ct.hu, ct.spacing_mm, HU_MIN)
    square_regions = _square(regions, ct.spacing_mm, 0)
    hu = resize(square_hu.astype(np.float32), size, size)
    nearest = ((np.arange(size) + 0.5) * len(square_regions) / size).astype(int)
    index = square_regions[np.ix_(nearest, nearest)]
    asked = tuple(
        Asked(text=text, regions=tuple(int(n) for n in np.unique(regions[mask]) if n))
        for text, mask in zip(sentences, masks, strict=True)
    )
    return hu.round().astype(np.int16), index, asked


def cut_into_regions(masks: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Number the pieces into which ``masks``, bool (H, W), cut a slice: uint8 (H, W), 0 outside all of them.

    Pixels belong to one region if the same masks hold them and they are connected.  The smallest pieces share the last
    number where there are more than a slice can hold.
    """
    from scipy import ndimage

    signature = np.zeros(shape, np.int64)
    known: dict[bytes, np.ndarray] = {}
    for mask in masks:
        known.setdefault(mask.tobytes(), mask)
    for mask in known.values():
        # Number every combination of masks anew, so that any number of masks fits.
        _, inverse = np.unique(signature * 2 + mask, return_inverse=True)
        signature = inverse.reshape(shape)
    outside = ~np.any([*known.values(), np.zeros(shape, bool)], axis=0)
    pieces: list[np.ndarray] = []
    for value in np.unique(signature[~outside]):
        labels, count = ndimage.label((signature == value) & ~outside, structure=np.ones((3, 3)))
        pieces += [labels == number for number in range(1, count + 1)]
    pieces.sort(key=lambda piece: -int(piece.sum()))
    index = np.zeros(shape, np.uint8)
    for number, piece in enumerate(pieces, 1):
        index[piece] = min(number, MAX_REGIONS)
    return index


def _mask(ct: CtSlice, row: Annotation) -> np.ndarray:
    mask = mask_in_grid(row, ct.to_input_grid(ct.hu).shape)
    return np.asarray(ct.to_model_frame(mask, ct.flips, ct.transposed))


def _square(pixels: np.ndarray, spacing_mm: tuple[float, float] | None, fill: float) -> np.ndarray:
    """Pad to a square with square pixels, as the runtime does before it resizes."""
    dy, dx = spacing_mm or (1.0, 1.0)
    if dy != dx:
        rows, columns = pixels.shape
        step = min(dy, dx)
        ys = ((np.arange(round(rows * dy / step)) + 0.5) * step / dy).astype(int).clip(max=rows - 1)
        xs = ((np.arange(round(columns * dx / step)) + 0.5) * step / dx).astype(int).clip(max=columns - 1)
        pixels = pixels[np.ix_(ys, xs)]
    side = max(pixels.shape)
    square = np.full((side, side), fill, pixels.dtype)
    top, left = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return square
