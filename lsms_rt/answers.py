"""The answers of an engine: slices and sentences in, masks out, in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .ct_slice import CtSlice
from .encoded import Encoded, joined
from .engine import Backend, Manifest, SentenceFeatures
from .postprocess import highest_probability, probability_in_grid
from .preprocess import Placement, to_tensor
from .segmentation import Segmentation

Timings = dict[str, float]


def answers(
    backend: Backend, manifest: Manifest, slices: Sequence[CtSlice], sentences: Sequence[Encoded], size: int
) -> Iterator[list[Segmentation]]:
    """Yield a list per slice, of one result per sentence.

    A batch holds a slice once per sentence.  Of more sentences than fit into one, groups are asked one after the other,
    for a few slices at a time.

    Args:
        backend: runs the engine.
        manifest: the engine's sizes and thresholds.
        slices: the slices.
        sentences: the sentences.
        size: images per batch, at most the engine's maximum.
    """
    parts = [sentences[n : n + size] for n in range(0, len(sentences), size)]
    groups = [(part, joined(part)) for part in parts]
    together = slices_together(len(sentences), size) if len(groups) > 1 else len(slices)
    for start in range(0, len(slices), max(1, together)):
        block = slices[start : start + together]
        answered = [_of_group(backend, manifest, block, start, group, text, size) for group, text in groups]
        if len(groups) == 1:
            yield from answered[0]
        else:
            for of_slice in zip(*map(list, answered), strict=True):
                yield [result for results in of_slice for result in results]


def slices_together(sentences: int, size: int) -> int:
    """Return how many slices are computed before the first has all its answers, for ``size`` images per batch."""
    groups = -(-sentences // size)
    return max(1, size // (sentences if groups == 1 else groups))


def _of_group(
    backend: Backend, manifest: Manifest, slices: Sequence[CtSlice], first: int, group: Sequence[Encoded],
    text: SentenceFeatures, size: int,
) -> Iterator[list[Segmentation]]:  # fmt: skip
    """Yield the results of slices, whose first has the index ``first``, for sentences of which a batch holds all.

    Batches are preprocessed lazily, one ahead of the GPU.
    """
    count = max(1, size // len(group))
    pending: deque[tuple[int, list[Placement], Timings]] = deque()
    # ms of all preprocessing since the last result, which is not part of the wait for the next one
    prepared: list[float] = []

    def tensors() -> Iterator[np.ndarray]:
        for start in range(0, len(slices), count):
            timings: Timings = {}
            with timed(timings, "prepare"):
                placed = [to_tensor(ct, manifest.image_size, manifest.hu_window, manifest.crop)
                          for ct in slices[start : start + count]]  # fmt: skip
                images = np.concatenate([tensor for tensor, _ in placed])
                images = np.repeat(images, len(group), axis=0) if len(group) > 1 else images
            prepared.append(timings["prepare"])
            pending.append((start, [placement for _, placement in placed], timings))
            yield images

    # All threads of a CPU compute a single image, one thread each of several.
    alone = len(slices) * len(group) == 1
    computed = (backend.segment(i, text) for i in tensors()) if alone else backend.segment_many(tensors(), text)
    with _closed(computed) as batches:
        begin = time.perf_counter()
        for logits in batches:
            start, placements, timings = pending.popleft()
            timings["image"] = (time.perf_counter() - begin) * 1000 - sum(prepared)
            prepared.clear()
            rows = logits.reshape(len(placements), len(group), *logits.shape[1:])
            with timed(timings, "mask"):
                found = [
                    [_result(manifest, first + start + n, slices[start + n], placement, values, sentence)
                     for values, sentence in zip(rows[n], group, strict=True)]
                    for n, placement in enumerate(placements)
                ]  # fmt: skip
            shares = {name: value / len(logits) for name, value in timings.items()}
            shares["total"] = sum(shares.values())
            for results in found:
                for result in results:
                    result.timings.update(shares)
                yield results
            begin = time.perf_counter()


def _result(
    manifest: Manifest, index: int, ct: CtSlice, placement: Placement, logits: np.ndarray, sentence: Encoded
) -> Segmentation:
    probability = probability_in_grid(logits, placement, ct)
    score = highest_probability(logits, placement)
    mask = probability > manifest.threshold
    if score < manifest.confidence:
        mask = np.zeros_like(mask)
    return Segmentation(
        mask=mask,
        probability=probability,
        text=sentence.text,
        score=score,
        ct=ct,
        weights_note=manifest.weights_note,
        confidence=manifest.confidence,
        reading=sentence.reading,
        index=index,
    )


@contextmanager
def _closed(batches: Iterator[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
    """Close a backend's generator at the end: it holds a lane of the GPU, also where nothing collects garbage soon."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


@contextmanager
def timed(timings: Timings, name: str) -> Iterator[None]:
    """Add the time of a step to ``timings``, in ms."""
    begin = time.perf_counter()
    yield
    timings[name] = (time.perf_counter() - begin) * 1000
