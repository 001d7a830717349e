"""Process the inputs one after the other; each slice's files are written before the next batch is computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError
from lsms_rt.privacy import names_shown
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices
from lsms_rt.segmenter import Segmentation, Segmenter
from lsms_rt.tokenizer import clean_sentence
from lsms_rt.writing.answer import Answer

from ..terminal import about
from .folder import OutputFolder
from .masks import read_mask
from .outputs import check_outputs, check_place, is_series_file, write_outputs
from .report import Report
from .request import Request
from .slices import own_error, results_of
from .summary import series_summary

# An input is given up where so many of its slices could not be computed.
MAX_FAILED = 10
# Yields the answers that it is passed, with their number, and shows progress.
Progress = Callable[[Iterator[Answer], int], Iterator[Answer]]


def run(segmenter: Segmenter, inputs: Sequence[Path], request: Request, progress: Progress) -> Report:
    """Segment every slice of every input: inputs in their order, the slices of each from feet to head.

    A file, slice or input that cannot be read or computed is reported and skipped, and so is a file of a whole series
    that cannot be written.

    Args:
        segmenter: the engine.
        inputs: files, folders and archives.
        request: the sentence, and what to write.
        progress: wraps the answers of each input, to show progress.

    Returns:
        The results, and what could not be read, computed or written.

    Raises:
        InputError: nothing could be read, the sentence cannot be used, or the output cannot be written.
        EngineError: nothing could be computed.
        MachineError: a library that an output needs is missing, or the disk is full.
    """
    # Validate the request before reading any file.
    text = clean_sentence(request.text)
    segmenter.prepare_sentence(text)
    if request.batch is not None and request.batch > segmenter.manifest.max_batch:
        raise InputError(f"--batch is {request.batch}; this engine supports 1 to {segmenter.manifest.max_batch}")
    check_outputs(request)
    check_place(request.output, inputs)
    with ExitStack() as stack:
        return _Run(segmenter, inputs, request, text, progress, stack).all()


class _Run:
    """One run: what it is asked for, what it has done, and its output folder once it is open."""

    def __init__(
        self, segmenter: Segmenter, inputs: Sequence[Path], request: Request, text: str, progress: Progress,
        stack: ExitStack,
    ) -> None:  # fmt: skip
        self.segmenter, self.inputs, self.request, self.text = segmenter, inputs, request, text
        self.progress, self.stack = progress, stack
        self.reading = segmenter.read_sentence(text)
        self.report = Report(
            engine=segmenter.digest,
            weights=segmenter.manifest.weights_note,
            precision=segmenter.precision,
            gate=segmenter.gate,
            sentence=self._sentence(),
            inputs=len(inputs),
        )
        self.folder: OutputFolder | None = None
        self.failures: list[LsmsError] = []
        # of slices so far, whether they have results or not
        self.count = 0

    def _sentence(self) -> dict[str, Any]:
        names = names_shown()
        text = {"text": self.text} if names else {}
        return text | self.reading.to_dict(include_text=names) | {"notes": list(self.reading.notes(names=names))}

    def all(self) -> Report:
        for number, path in enumerate(self.inputs, 1):
            with about(self._prefix(number)):
                try:
                    self._input(number, path)
                except LsmsError:
                    # of the output folder, so of all inputs
                    raise
                except Exception as error:
                    # A fault of ours: told at the end, when the other inputs are done.
                    self.report.error = self.report.error or error
                    self.report.not_computed.append(f"{self._prefix(number)}unexpected {type(error).__name__}")
        report = self.report
        if not report.results:
            if report.error is not None:
                raise report.error
            if len(self.failures) == 1:
                raise self.failures[0]
            reasons = "; ".join((*report.not_read, *report.not_computed, *report.not_written))
            kinds: tuple[type[LsmsError], ...] = (EngineError, MachineError)
            kind = next((kind for kind in kinds if all(isinstance(e, kind) for e in self.failures)), InputError)
            raise kind(f"nothing could be {'computed' if report.not_computed else 'read'}: {reasons}")
        if self.folder is not None:
            self.folder.finish(report.to_json() + "\n", self._stays())
            report.kept += self.folder.kept
        return report

    def _prefix(self, number: int) -> str:
        return "" if len(self.inputs) == 1 else f"input {number}: "

    def _start(self, number: int) -> str:
        """Return the beginning of the names of an input's files."""
        return "" if len(self.inputs) == 1 else f"input{number}_"

    def _stays(self) -> Callable[[str], bool]:
        """Return which old files stay: those of inputs without results; pictures, unless everything has results."""
        answered = {row["input"] for row in self.report.series}
        complete = self.report.is_complete and not self.report.not_written

        def stays(name: str) -> bool:
            numbers = range(1, len(self.inputs) + 1)
            number = next((n for n in numbers if is_series_file(name, self._start(n))), None)
            return not complete if number is None else number not in answered

        return stays

    def _input(self, number: int, path: Path) -> None:
        report, left_out = self.report, LeftOut()
        slices: list[CtSlice] = []
        try:
            slices = load_slices(path, series=self.request.series, stated=self.request.stated, left_out=left_out)
        except (LsmsError, MemoryError, OSError) as error:
            self.failures.append(own_error(error))
            left_out.damaged.append(str(self.failures[-1]))
        report.not_read += [self._prefix(number) + reason for reason in left_out.damaged]
        if not slices:
            return
        if self.request.output is not None and self.folder is None:
            self.folder = self.stack.enter_context(OutputFolder(self.request.output, self._identity()))
        answers: list[Answer] = []
        first, self.count = self.count, self.count + len(slices)
        try:
            for answer in self.progress(self._answers(number, first, slices), len(slices)):
                answers.append(answer)
                report.results.append(answer.record)
        except (LsmsError, MemoryError) as error:
            # The slices' files cannot be written.
            self.failures.append(own_error(error))
            report.not_written.append(f"{self._prefix(number)}{self.failures[-1]}")
        if not answers:
            return
        row = series_summary(number, answers, left_out, len(slices) - len(answers))
        if self.folder is not None:
            failed = write_outputs(
                answers, self.request, self.folder, self._start(number), report.engine, row["incomplete"]
            )
            report.not_written += [self._prefix(number) + reason for reason in failed]
        report.series.append(row)

    def _identity(self) -> list[Any]:
        """Identify the request, inputs included: results of two patients must not be mixed."""
        request, paths = self.request, [os.path.realpath(path) for path in self.inputs]
        stated = asdict(request.stated)
        return [__version__, self.segmenter.digest, self.text, stated, request.series, names_shown(), paths]

    def _answers(self, number: int, first: int, slices: list[CtSlice]) -> Iterator[Answer]:
        """Yield the answers of one input's slices, which are numbered from ``first``."""
        known = [self._known(number, first + n, ct) for n, ct in enumerate(slices)]
        self.report.resumed += sum(answer is not None for answer in known)
        remaining = [ct for ct, answer in zip(slices, known, strict=True) if answer is None]
        failed = 0
        with closing(results_of(self.segmenter, remaining, self.text, self.request.batch)) as results:
            for n, answer in enumerate(known):
                if answer is not None:
                    yield answer
                    continue
                if failed == MAX_FAILED:
                    continue
                result = next(results)
                try:
                    if isinstance(result, LsmsError):
                        raise result
                    record = _record(result, number, first + n, n)
                except LsmsError as error:
                    failed += 1
                    self._not_computed(number, slices[n].source, error, failed)
                    continue
                yield self._written(result, record)

    def _not_computed(self, number: int, source: str, error: LsmsError, failed: int) -> None:
        self.failures.append(error)
        text = str(error) if str(error).startswith(source) else f"{source}: {error}"
        self.report.not_computed.append(self._prefix(number) + text)
        if failed == MAX_FAILED:
            rest = f"{failed} slices failed, so the input's other slices without a result are not tried"
            self.report.not_computed.append(self._prefix(number) + rest)

    def _key(self, number: int, n: int, ct: CtSlice) -> str:
        assert self.folder is not None
        geometry = (ct.hu.shape, ct.spacing_mm, ct.flips, ct.transposed, ct.position_mm)
        return self.folder.key(number, n, geometry, ct.hu.tobytes())

    def _names(self, number: int, n: int) -> dict[str, str]:
        """Return the names of a slice's files, by their keys in its record."""
        return {kind: f"{self._start(number)}{n:04d}_{kind}.png" for kind in ("overlay", "mask")}

    def _known(self, number: int, n: int, ct: CtSlice) -> Answer | None:
        """Return the answer of an earlier run for this slice; None if there is none or its files have changed."""
        # Without records there is no need to hash the pixels.
        if self.folder is None or not self.folder.has_records():
            return None
        names = self._names(number, n)
        found = self.folder.find(self._key(number, n, ct), list(names.values()))
        mask = None if found is None else read_mask(found[1][1], ct)
        if found is None or mask is None:
            return None
        record, _ = found
        # In this run the same pixels may have another label, and may come from a file that says more or less.
        notes = [*ct.notes, *self.reading.notes(names=names_shown())]
        now = {"source": ct.source, "frame": ct.frame, "side_known": ct.side_known, "notes": notes}
        return self._answer(ct, mask, record | now)

    def _answer(self, ct: CtSlice, mask: np.ndarray, record: dict[str, Any]) -> Answer:
        return Answer(ct, mask, self.text, record, self.reading.read_as, self.reading.understood)

    def _written(self, result: Segmentation, record: dict[str, Any]) -> Answer:
        """Write the files of a new result."""
        answer = self._answer(result.ct, result.mask, record)
        if self.folder is None:
            return answer
        number, n = record["input"], record["number"]
        names = self._names(number, n)
        record |= names
        key, note = self._key(number, n, result.ct), self._prefix(number).removesuffix(": ") or None
        with self.folder.new_files(*names.values(), key=key, record=record) as (overlay, mask):
            result.save_overlay(overlay, note=note, include_text=names_shown())
            result.save_mask(mask)
        return answer


def _record(result: Segmentation, number: int, n: int, index: int) -> dict[str, Any]:
    """Return the entry in results.json of slice ``index`` of an input; InputError if it cannot be written as JSON."""
    record = {"number": n, "input": number} | result.to_dict(include_text=names_shown()) | {"index": index}
    try:
        json.dumps(record, allow_nan=False)
    except ValueError as error:
        raise InputError(
            "a measure is infinite or no number; check the pixel spacing and HU of the image, and export it again"
        ) from error
    return record
