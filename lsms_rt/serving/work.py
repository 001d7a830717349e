"""What a worker does with a task.  Imported in worker processes only: it opens engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice, slice_from_array
from lsms_rt.data import PROBE_IMAGE, PROBE_TEXT
from lsms_rt.errors import InputError, located
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices
from lsms_rt.runs.jobs import jobs_of
from lsms_rt.runs.request import Request
from lsms_rt.runs.run import run
from lsms_rt.segmenter import Segmenter
from lsms_rt.writing.answer import Answer

from .settings import MAX_MASK_VOXELS, Model
from .tasks import Describe, Done, Infer, Segment, Task
from .volume import IMAGE, affine_of, image_of, mask_in_frame, mask_name, read_grid, spacing_of, write_volume

# Called with the slices that are done, and their number in all; may end the task.
Progress = Callable[[int, int], None]


class Worker:
    """The engines of one worker process."""

    def __init__(self, models: Sequence[Model], device: str | None, threads: int | None, runtime: Any) -> None:
        options = runtime | {"device": device, "threads": threads}
        self._segmenters = {model.name: Segmenter(model.path, digest=model.digest, **options) for model in models}

    def opened(self) -> dict[str, dict[str, Any]]:
        """Segment a slice with every engine, and return what is told of each."""
        self._probe()
        return {name: _about(segmenter) for name, segmenter in self._segmenters.items()}

    def do(self, task: Task, progress: Progress) -> Done:
        """Do a task.

        Raises:
            LsmsError: the image, the sentence or this machine does not allow it.
            CancelledError: it was cancelled.
        """
        if isinstance(task, Infer):
            return self._infer(task, progress)
        if isinstance(task, Segment):
            return self._segment(task, progress)
        if isinstance(task, Describe):
            return _describe(task)
        self._probe()
        return Done(None)

    def _probe(self) -> None:
        for segmenter in self._segmenters.values():
            segmenter.predict(PROBE_IMAGE, PROBE_TEXT)

    def _infer(self, task: Infer, progress: Progress) -> Done:
        seconds: dict[str, float] = {}
        segmenter = self._segmenters[task.model]
        with _timed(seconds, "text"):
            for number, text in enumerate(task.sentences, 1):
                try:
                    segmenter.prepare_sentence(text)
                except InputError as error:
                    raise located(error, f"sentence {number}: " if len(task.sentences) > 1 else "") from error
        with _timed(seconds, "read"):
            slices = _slices_of(task)
            _check_masks(len(task.sentences) * sum(ct.hu.size for ct in slices))
        masks, scores, found, readings = [], [], [], []
        with _timed(seconds, "image"):
            for n, results in enumerate(segmenter.predict_series(slices, task.sentences), 1):
                masks.append([result.mask for result in results])
                scores.append([result.score for result in results])
                found.append([result.found for result in results])
                readings = [result.reading for result in results if result.reading is not None]
                # The last is told by the reply.
                if n < len(slices):
                    progress(n, len(slices))
        value = {
            # (sentences, slices, rows, columns)
            "mask": np.array(masks, np.uint8).swapaxes(0, 1),
            "score": np.array(scores, np.float32).T,
            "found": np.array(found, bool).T,
            "read_as": [reading.read_as for reading in readings],
            "understood": [reading.understood for reading in readings],
            "notes": ["; ".join(reading.notes(names=True)) for reading in readings],
            "engine": segmenter.digest,
        }
        return Done(value, seconds)

    def _segment(self, task: Segment, progress: Progress) -> Done:
        seconds: dict[str, float] = {}
        answers: list[list[Answer]] = []

        def watched(items: Iterator[list[Answer]], total: int) -> Iterator[list[Answer]]:
            progress(0, total)
            for n, item in enumerate(items, 1):
                answers.append(item)
                yield item
                progress(n, total)

        switches: dict[str, Any] = dict.fromkeys(task.files, True)
        request = Request(output=task.output, series=task.series, stated=task.stated, **switches)
        with _timed(seconds, "run"):
            report = run(self._segmenters[task.model], jobs_of([task.source], task.sentences), request, watched)
        if report.error is not None:
            raise report.error
        with _timed(seconds, "volume"):
            _write_masks(task.grid, task.output, answers, len(task.sentences))
        return Done(report.to_dict(), seconds)


def _write_masks(grid: Path, output: Path, answers: Sequence[Sequence[Answer]], sentences: int) -> None:
    """Write each sentence's mask as a volume on the uploaded image's grid; a slice without an answer is empty."""
    shape, affine = read_grid(grid)
    volumes = np.zeros((sentences, *shape), np.uint8)
    for answer in (answer for of_slice in answers for answer in of_slice):
        place = answer.record["sentence"] - 1, answer.record["index"]
        volumes[place] = mask_in_frame(answer.ct, answer.mask)
    for number, volume in enumerate(volumes, 1):
        write_volume(output / mask_name(number), volume, affine)


def _describe(task: Describe) -> Done:
    seconds: dict[str, float] = {}
    left_out = LeftOut()
    with _timed(seconds, "read"):
        slices = load_slices(task.source, series=task.series, stated=task.stated, left_out=left_out)
    if not slices:
        raise InputError("no slice could be read; " + "; ".join(left_out.damaged))
    image = image_of(slices)
    # A task that is ended in the middle of it leaves no half of a volume under its name.
    task.output.mkdir(parents=True, exist_ok=True)
    part = task.output / f"part-{IMAGE}"
    write_volume(part, image, affine_of(slices))
    part.replace(task.output / IMAGE)
    value = {
        "shape": list(image.shape),
        "spacing": list(spacing_of(slices)),
        "spacing_known": slices[0].spacing_mm is not None,
        "side_known": all(ct.side_known for ct in slices),
        "slices": len(slices),
        "notes": sorted({note for ct in slices for note in ct.notes}),
        "not_read": list(left_out.damaged),
    }
    return Done(value, seconds)


def _check_masks(voxels: int) -> None:
    if voxels > MAX_MASK_VOXELS:
        raise InputError(
            f"masks of {voxels} voxels are over the limit of {MAX_MASK_VOXELS}; ask about fewer slices or sentences"
        )


def _slices_of(task: Infer) -> list[CtSlice]:
    if isinstance(task.image, np.ndarray):
        # The contract of tensors: the usual axial view.
        return [
            slice_from_array(hu, spacing_mm=task.spacing, side_known=True, source=f"slice {n}")
            for n, hu in enumerate(task.image)
        ]
    assert task.scratch is not None
    task.scratch.mkdir()
    path = task.scratch / "image.dcm"
    path.write_bytes(task.image)
    return load_slices(path)


def _about(segmenter: Segmenter) -> dict[str, Any]:
    manifest = segmenter.manifest
    return {
        "digest": segmenter.digest,
        "backend": manifest.backend,
        "backend_version": segmenter.backend_version,
        "device": segmenter.device,
        "precision": segmenter.precision,
        "gate": segmenter.gate,
        "weights": manifest.weights_note,
        "image_size": manifest.image_size,
        "max_batch": manifest.max_batch,
        "max_tokens": manifest.max_tokens,
        "confidence": manifest.confidence,
    }


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - begin
