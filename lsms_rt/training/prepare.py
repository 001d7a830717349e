"""A data set in the RefHL-Seg layout -> training slices on the model's grid.

Every sentence means whole regions.  Where the data set has drawn every lesion, these are the lesions.  Where it has
not, they are the pieces into which all masks of a slice cut it; two lesions that touch nowhere are two regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from lsms_rt.ct_slice import HU_MIN, CtSlice
from lsms_rt.datasets.knowledge import LESIONS, Knowledge
from lsms_rt.datasets.questions import mask_in_grid
from lsms_rt.datasets.refhl import Annotation, table_name
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.preprocess import resize
from lsms_rt.privacy import named
from lsms_rt.reading.load import load_slice

from .shrink import resized
from .slices import MAX_REGIONS, Asked, SliceRecord, Writer, is_complete

P = ParamSpec("P")
T = TypeVar("T")


def write_dataset_slices(folder: Path, dataset: Path, rows: Sequence[Annotation], size: int, title: str) -> None:
    """Read every picture of ``rows`` once into ``folder``; a folder that is complete is left as it is.

    Args:
        folder: where to write, see :mod:`.slices`.
        dataset: the data set, which may know more than masks and sentences, see ``datasets.knowledge``.
        rows: of one split.
        size: side of the model's input for a whole slice, pixels.
        title: of the progress bar.

    Raises:
        DatasetError: something cannot be used; the error lists all of it, with its lines.
    """
    from tqdm import tqdm

    if is_complete(folder):
        return
    knowledge = Knowledge(dataset, rows)
    groups: dict[Path, list[Annotation]] = {}
    for row in rows:
        groups.setdefault(row.image, []).append(row)
    writer = Writer(folder, len(groups), size, organs=knowledge.organs)
    problems = list(knowledge.problems)
    for image, group in tqdm(groups.items(), desc=title, unit="slice", disable=None):
        try:
            ct = load_slice(image)
        except InputError as error:
            problems.append(f"line {group[0].line}: {named('image', image.name)}: {error}")
            continue
        found = _slice(ct, group, knowledge, problems)
        # After a problem, the rest is read only to report all of them at once.
        if found is not None and not problems:
            record, labels = found
            writer.add(record, hu=_hu(ct, size), **{name: _small(ct, label, size) for name, label in labels.items()})
    if problems:
        raise DatasetError(table_name(dataset), problems, len(rows))
    writer.close(complete=knowledge.lesions)


def _slice(
    ct: CtSlice, group: Sequence[Annotation], knowledge: Knowledge, problems: list[str]
) -> tuple[SliceRecord, dict[str, np.ndarray]] | None:
    """What is known of a slice, and its ``index`` and ``organs``, uint8 (H, W) in the model's frame.

    None where something is wrong, which is then added to ``problems``.
    """
    first, shape, before = group[0], ct.to_input_grid(ct.hu).shape, len(problems)
    masks = [_tried(problems, mask_in_grid, row, shape) for row in group]
    drawn = _tried(problems, knowledge.lesions_of, first, shape) if knowledge.lesions else None
    organs = _tried(problems, knowledge.organs_of, first, shape) if knowledge.organs else None
    if len(problems) > before:
        return None
    turned = [ct.to_model_frame(mask, ct.flips, ct.transposed) for mask in masks if mask is not None]
    lesions, phase = None, ""
    if drawn is None:
        index = cut_into_regions(turned, ct.hu.shape)
    else:
        drawn = ct.to_model_frame(drawn, ct.flips, ct.transposed)
        index = np.searchsorted(np.union1d([0], drawn), drawn).astype(np.uint8)
        for row, mask in zip(group, turned, strict=True):
            _tried(problems, _check_whole, row, mask, index)
        if knowledge.attributes and not knowledge.problems:
            known = _tried(problems, knowledge.attributes_of, first, drawn, ct.spacing_mm)
            lesions, phase = known or (None, "")
    if len(problems) > before:
        return None
    record = SliceRecord(
        case=first.case_id,
        name=f"{first.case_id}/{first.slice_id}",
        asked=tuple(
            Asked(text=row.sentence, regions=_regions(mask, index), meaning=row.query)
            for row, mask in zip(group, turned, strict=True)
        ),
        regions=int(index.max()),
        lesions=lesions,
        phase=phase,
    )
    labels = {"index": index}
    if organs is not None:
        labels["organs"] = ct.to_model_frame(organs, ct.flips, ct.transposed)
    return record, labels


def _tried(problems: list[str], read: Callable[P, T], *arguments: P.args, **named_ones: P.kwargs) -> T | None:
    """What a function returns; None where it raises InputError, whose message is added to ``problems``."""
    try:
        return read(*arguments, **named_ones)
    except InputError as error:
        problems.append(str(error))
        return None


def _check_whole(row: Annotation, mask: np.ndarray, index: np.ndarray) -> None:
    """Raise InputError unless a mask consists of whole lesions: a part of one is not told apart from it."""
    wrong = int((mask ^ np.isin(index, _regions(mask, index))).sum())
    if wrong:
        raise InputError(
            f"line {row.line}: {named('mask', row.mask.name)} and the lesions that it touches, in the slice's picture "
            f"of {LESIONS}, differ in {wrong} pixels; draw both alike, or remove the folder {LESIONS}"
        )


def _regions(mask: np.ndarray, index: np.ndarray) -> tuple[int, ...]:
    return tuple(int(number) for number in np.unique(index[mask]) if number)


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


def _hu(ct: CtSlice, size: int) -> np.ndarray:
    """HU int16 (size, size)."""
    square = _square(ct.hu, ct.spacing_mm, HU_MIN)
    return np.asarray(resize(square.astype(np.float32), size, size).round().astype(np.int16))


def _small(ct: CtSlice, labels: np.ndarray, size: int) -> np.ndarray:
    """Labels (H, W) of a slice in its model frame as labels (size, size), each that of the nearest pixel."""
    return resized(_square(labels, ct.spacing_mm, 0), size)


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
