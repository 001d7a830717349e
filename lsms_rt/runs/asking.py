"""The answers of one input: those of an earlier run, or new ones, whose files are written at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.digest import sha256
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.privacy import names_shown
from lsms_rt.segmentation import Segmentation
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import slice_name

from .folder import OutputFolder
from .jobs import Sentence
from .masks import read_mask
from .predictor import Predictor
from .slices import results_of

# An input is given up where so many of its slices could not be computed.
MAX_FAILED = 10


class Asking:
    """Asks the engine about the slices of one input.

    Args:
        segmenter: the engine.
        folder: the output folder; None if there is none.
        slices: the slices, from feet to head.
        sentences: the input's sentences.
        batch: images per call of the engine; None for the engine's largest batch.
        number: the input's number, from 1.
        first: number of its first slice in the run.
        prefix: beginning of messages about the input.
        start: beginning of the names of its files.
        failed: called with the message and the error of an answer that could not be computed; without an error, with
            another message.

    Attributes:
        resumed: number of answers of an earlier run.
    """

    def __init__(
        self, segmenter: Predictor, folder: OutputFolder | None, slices: Sequence[CtSlice],
        sentences: Sequence[Sentence], *, batch: int | None, number: int, first: int, prefix: str, start: str,
        failed: Callable[[str, LsmsError | None], None],
    ) -> None:  # fmt: skip
        self._segmenter, self._folder, self._slices, self._sentences = segmenter, folder, slices, sentences
        self._batch, self._number, self._first, self._failed = batch, number, first, failed
        self._prefix, self._start = prefix, start
        self.resumed = 0

    def answers(self) -> Iterator[list[Answer]]:
        """Yield a list per slice: its answers in the order of the sentences, without those that cannot be computed."""
        known = [self._known(n) for n in range(len(self._slices))]
        self.resumed = sum(answer is not None for of_slice in known for answer in of_slice)
        failed: Counter[int] = Counter()
        # Slices that are asked the same sentences are computed together.
        for missing, numbers in groupby(range(len(known)), lambda n: tuple(a is None for a in known[n])):
            part = list(numbers)
            asked = [s for s, absent in zip(self._sentences, missing, strict=True) if absent]
            slices = [self._slices[n] for n in part] if asked else []
            texts = [sentence.text for sentence in asked]
            with closing(results_of(self._segmenter, slices, texts, self._batch)) as results:
                for n in part:
                    new: dict[int, Answer] = {}
                    if any(failed[sentence.number] < MAX_FAILED for sentence in asked):
                        new = self._new(n, asked, next(results), failed)
                    both = zip(self._sentences, known[n], strict=True)
                    yield [a for s, old in both if (a := old or new.get(s.number)) is not None]

    def _new(
        self, n: int, asked: Sequence[Sentence], results: Sequence[Segmentation | LsmsError], failed: Counter[int]
    ) -> dict[int, Answer]:
        """Write a slice's new answers, and report its errors; return the answers by the numbers of their sentences."""
        good, image = {}, "" if self._folder is None else _digest(self._slices[n])
        for sentence, result in zip(asked, results, strict=True):
            if failed[sentence.number] == MAX_FAILED:
                continue
            answer = self._written(n, sentence, result, image)
            if isinstance(answer, Answer):
                good[sentence.number] = answer
                continue
            failed[sentence.number] += 1
            source, which = self._slices[n].source, "" if sentence.alone else f"{sentence.name}: "
            text = str(answer) if str(answer).startswith(source) else f"{source}: {answer}"
            self._failed(f"{self._prefix}{which}{text}", answer)
            if failed[sentence.number] == MAX_FAILED:
                rest = f"{MAX_FAILED} slices failed, so the input's other slices without a result are not tried"
                self._failed(f"{self._prefix}{which}{rest}", None)
        return good

    def _known(self, n: int) -> list[Answer | None]:
        """Return a slice's answers of an earlier run; None where there is none or its files have changed."""
        folder = self._folder
        # Without records there is no need to hash the pixels.
        if folder is None or not folder.has_records():
            return [None] * len(self._sentences)
        image = _digest(self._slices[n])
        return [self._found(folder, n, sentence, image) for sentence in self._sentences]

    def _found(self, folder: OutputFolder, n: int, sentence: Sentence, image: str) -> Answer | None:
        ct, names = self._slices[n], self._names(n, sentence)
        found = folder.find(self._key(folder, n, sentence, image), list(names.values()))
        mask = None if found is None else read_mask(found[1][1], ct)
        if found is None or mask is None:
            return None
        record, _ = found
        # In this run the same pixels may have another label, and may come from a file that says more or less.
        notes = [*ct.notes, *sentence.reading.notes(names=names_shown())]
        now = {
            "source": ct.source, "frame": ct.frame, "slice": slice_name(ct), "side_known": ct.side_known,
            "notes": notes,
        }  # fmt: skip
        return _answer(ct, mask, sentence, record | now)

    def _written(
        self, n: int, sentence: Sentence, result: Segmentation | LsmsError, image: str
    ) -> Answer | LsmsError:  # fmt: skip
        """Write the files of a new result; return what is kept of it, or why there is none."""
        if isinstance(result, LsmsError):
            return result
        try:
            record = self._record(n, sentence, result)
        except InputError as error:
            return error
        answer = _answer(result.ct, result.mask, sentence, record)
        if self._folder is None:
            return answer
        names = self._names(n, sentence)
        record |= names
        key = self._key(self._folder, n, sentence, image)
        said = (self._prefix.removesuffix(": "), sentence.name)
        with self._folder.new_files(*names.values(), key=key, record=record) as (overlay, mask):
            result.save_overlay(overlay, note=", ".join(filter(None, said)) or None, include_text=names_shown())
            result.save_mask(mask)
        return answer

    def _record(self, n: int, sentence: Sentence, result: Segmentation) -> dict[str, Any]:
        """Return an answer's entry in results.json; InputError if it cannot be written as JSON."""
        place = {"number": self._first + n, "input": self._number, "sentence": sentence.number}
        record = place | result.to_dict(include_text=names_shown()) | {"index": n}
        try:
            json.dumps(record, allow_nan=False)
        except ValueError as error:
            raise InputError(
                "a measure is infinite or no number; check the pixel spacing and HU of the image, and export it again"
            ) from error
        return record

    def _key(self, folder: OutputFolder, n: int, sentence: Sentence, image: str) -> str:
        return folder.key(self._number, self._first + n, sentence.text, image)

    def _names(self, n: int, sentence: Sentence) -> dict[str, str]:
        """Return the names of an answer's files, by their keys in its record."""
        begin = f"{self._start}{self._first + n:04d}_{'' if sentence.alone else f'{sentence.number}_'}"
        return {kind: f"{begin}{kind}.png" for kind in ("overlay", "mask")}


def _digest(ct: CtSlice) -> str:
    """Return a digest of all of a slice that an answer depends on."""
    geometry = (ct.hu.shape, ct.spacing_mm, ct.flips, ct.transposed, ct.position_mm)
    return sha256(repr(geometry).encode() + ct.hu.tobytes())


def _answer(ct: CtSlice, mask: np.ndarray, sentence: Sentence, record: dict[str, Any]) -> Answer:
    return Answer(ct, mask, sentence.text, record, sentence.reading.read_as, sentence.reading.understood)
