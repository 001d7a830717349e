"""Process the inputs one after the other; each slice's files are written before the next batch is computed."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.atomic import unwritable
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError
from lsms_rt.privacy import names_shown
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices
from lsms_rt.writing.answer import Answer

from .about import about
from .asking import Asking
from .folder import OutputFolder
from .jobs import Job, Sentence, read_sentences
from .outputs import check_outputs, check_place, is_series_file, write_outputs
from .predictor import Predictor
from .report import Report
from .request import Request
from .shard import Shard, facts
from .slices import own_error
from .summary import series_summary

_log = logging.getLogger("lsms_rt")
# Yields the slices' answers that it is passed, with their number, and shows progress.
Progress = Callable[[Iterator[list[Answer]], int], Iterator[list[Answer]]]


def unwatched(answers: Iterator[list[Answer]], total: int) -> Iterator[list[Answer]]:
    """Show no progress."""
    return answers


def run(segmenter: Predictor, jobs: Sequence[Job], request: Request, progress: Progress = unwatched) -> Report:
    """Segment every slice of every input for all its sentences: inputs in their order, slices from feet to head.

    A file, slice or input that cannot be read or computed is reported and skipped, and so is a file of a whole series
    that cannot be written.

    Args:
        segmenter: the engine, here or behind a server.
        jobs: files, folders and archives, each with its sentences.
        request: how to read, and what to write.
        progress: wraps the answers of each input, to show progress; the default shows none.

    Returns:
        The results, and what could not be read, computed or written.

    Raises:
        InputError: nothing could be read, a sentence cannot be used, or the output cannot be written.
        EngineError: nothing could be computed.
        MachineError: a library that an output needs is missing, or the disk is full.
    """
    # Validate the request before reading any file.
    shard = request.shard
    numbers = range(1, len(jobs) + 1) if shard is None else shard.numbers(len(jobs))
    own = {number: jobs[number - 1] for number in numbers}
    sentences = read_sentences(segmenter, own)
    if request.batch is not None and request.batch > segmenter.manifest.max_batch:
        raise InputError(f"--batch is {request.batch}; this engine supports 1 to {segmenter.manifest.max_batch}")
    check_outputs(request)
    check_place(request.output, [job.path for job in jobs])
    report = Report.of(segmenter, sentences, len(jobs))
    if shard is not None:
        report.shard = facts(shard, segmenter, jobs, request)
        request = replace(request, output=_folder_of_shard(request.output, shard))
    with ExitStack() as stack:
        return _Run(segmenter, own, sentences, request, progress, stack, report).all()


def _folder_of_shard(output: Path | None, shard: Shard) -> Path:
    if output is None:
        raise InputError("--shard writes results that lsms-rt merge joins; add -o DIR")
    try:
        # What is merged into it shows patients, too.
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error) from error
    return output / shard.folder


class _Run:
    """One run: what it is asked for, what it has done, and its output folder once it is open."""

    def __init__(
        self, segmenter: Predictor, jobs: Mapping[int, Job], sentences: Mapping[int, list[Sentence]], request: Request,
        progress: Progress, stack: ExitStack, report: Report,
    ) -> None:  # fmt: skip
        self.segmenter, self.jobs, self.sentences, self.request = segmenter, jobs, sentences, request
        self.progress, self.stack = progress, stack
        self.started, self.seconds = datetime.now().astimezone(), defaultdict[str, float](float)
        self.report = report
        self.folder: OutputFolder | None = None
        self.failures: list[LsmsError] = []
        # numbers of the inputs whose own files were written
        self.finished: set[int] = set()
        # of slices so far, whether they have results or not
        self.count = 0

    def all(self) -> Report:
        with self._timed("total"):
            for number, job in self.jobs.items():
                with about(self._prefix(number)):
                    self._try(number, job)
        report = self.report
        if not report.results and not self._are_refused():
            if report.error is not None:
                raise report.error
            if len(self.failures) == 1:
                raise self.failures[0]
            reasons = "; ".join((*report.not_read, *report.not_computed, *report.not_written))
            kinds: tuple[type[LsmsError], ...] = (EngineError, MachineError)
            kind = next((kind for kind in kinds if all(isinstance(e, kind) for e in self.failures)), InputError)
            raise kind(f"nothing could be {'computed' if report.not_computed else 'read'}: {reasons}")
        report.add_run(self.started, self.seconds, self.count)
        if self.folder is not None:
            self.folder.finish(report.to_json() + "\n", self._stays())
            report.kept += self.folder.kept
            report.removed = self.folder.removed
        return report

    def _try(self, number: int, job: Job) -> None:
        try:
            self._input(number, job)
        except LsmsError:
            # of the output folder, so of all inputs
            raise
        except Exception as error:
            # A fault of ours: told at the end, when the other inputs are done.
            self.report.error = self.report.error or error
            self.report.not_computed.append(f"{self._prefix(number)}unexpected {type(error).__name__}")

    def _prefix(self, number: int) -> str:
        return "" if self.report.inputs == 1 else f"input {number}: "

    def _start(self, number: int) -> str:
        """Return the beginning of the names of an input's files."""
        return "" if self.report.inputs == 1 else f"input{number}_"

    def _stays(self) -> Callable[[str], bool]:
        """Return which old files stay: those of inputs without new ones; pictures, unless everything has results."""
        complete = self.report.is_complete and not self.report.not_written

        def stays(name: str) -> bool:
            number = next((n for n in self.jobs if is_series_file(name, self._start(n))), None)
            return not complete if number is None else number not in self.finished

        return stays

    def _input(self, number: int, job: Job) -> None:
        report, left_out = self.report, LeftOut()
        with self._timed("reading"):
            slices = self._read(number, job, left_out)
        if not slices:
            return
        self._open_folder()
        sentences, answers = self.sentences[number], list[Answer]()
        first, self.count = self.count, self.count + len(slices)
        asking = Asking(
            self.segmenter, self.folder, slices, sentences, batch=self.request.batch, number=number, first=first,
            prefix=self._prefix(number), start=self._start(number), failed=self._failed,
        )  # fmt: skip
        try:
            with self._timed("answers"):
                for of_slice in self.progress(asking.answers(), len(slices)):
                    answers += of_slice
                    report.results += [answer.record for answer in of_slice]
        except (LsmsError, MemoryError) as error:
            # The slices' files cannot be written.
            self.failures.append(own_error(error))
            report.not_written.append(f"{self._prefix(number)}{self.failures[-1]}")
        report.resumed += asking.resumed
        if answers:
            with self._timed("files"):
                self._finish(number, sentences, answers, left_out, len(slices))

    def _open_folder(self) -> None:
        if self.request.output is not None and self.folder is None:
            self.folder = self.stack.enter_context(OutputFolder(self.request.output, self._identity()))
            self.started = self.folder.started

    def _are_refused(self) -> bool:
        """Return whether this is a shard whose inputs cannot be used, which is a result that others wait for."""
        refused = all(isinstance(error, InputError) for error in self.failures)
        if not self.report.shard or self.report.error is not None or not refused:
            return False
        self._open_folder()
        return True

    def _read(self, number: int, job: Job, left_out: LeftOut) -> list[CtSlice]:
        series, slices = job.series or self.request.series, list[CtSlice]()
        try:
            slices = load_slices(job.path, series=series, stated=self.request.stated, left_out=left_out)
        except (LsmsError, MemoryError, OSError) as error:
            self.failures.append(own_error(error))
            left_out.damaged.append(str(self.failures[-1]))
        self.report.not_read += [self._prefix(number) + reason for reason in left_out.damaged]
        return slices

    def _failed(self, message: str, error: LsmsError | None) -> None:
        if error is not None:
            self.failures.append(error)
        if isinstance(error, MachineError):
            self.report.machine_error = self.report.machine_error or error
        self.report.not_computed.append(message)

    def _finish(
        self, number: int, sentences: Sequence[Sentence], answers: Sequence[Answer], left_out: LeftOut, slices: int
    ) -> None:
        """Summarize an input, and write its files."""
        rows = []
        if slices > 1 and any(sentence.reading.ranks for sentence in sentences):
            _log.warning('a rank ("the largest", "the second") is one among the lesions of a slice, not of the series')
        for sentence in sentences:
            own = [answer for answer in answers if answer.text == sentence.text]
            if own:
                rows.append(series_summary(number, own, left_out, slices - len(own), sentence=sentence.number))
        if self.folder is not None and len(rows) < len(sentences):
            missing = "a sentence has no answers, so the files of all slices are left out"
            self.report.not_written.append(self._prefix(number) + missing)
        elif self.folder is not None:
            # Writers count for themselves the slices that only some sentences have answers for.
            without = slices - len({answer.record["number"] for answer in answers})
            # Writers number sentences by their first answers, and a slice may lack one.
            answers = sorted(answers, key=lambda answer: int(answer.record["sentence"]))
            files, failed = write_outputs(
                answers, self.request, self.folder, self._start(number), self.report.engine,
                len(left_out.damaged) + without, self.started,
            )  # fmt: skip
            self.report.files += [{"input": number} | file for file in files]
            self.finished.add(number)
            self.report.not_written += [self._prefix(number) + reason for reason in failed]
        self.report.series += rows

    def _identity(self) -> list[Any]:
        """Identify the request, inputs included: results of two patients must not be mixed."""
        jobs = self.jobs.values()
        asked = [(os.path.realpath(job.path), job.texts, job.series or self.request.series) for job in jobs]
        return [__version__, self.segmenter.digest, asdict(self.request.stated), names_shown(), asked]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - begin
