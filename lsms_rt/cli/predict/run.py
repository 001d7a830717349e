"""Process the inputs one after the other; each slice's files are written before the next batch is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.atomic import atomic_file, write_text
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.privacy import names_shown
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices
from lsms_rt.segmenter import Segmentation, Segmenter
from lsms_rt.tokenizer import clean_sentence
from lsms_rt.writing.answer import Answer

from .journal import Journal, request_digest
from .outputs import RESULTS, check_outputs, remove_stale_outputs, write_outputs
from .request import Request
from .summary import series_summary


@dataclass
class Report:
    """What a run did.

    Attributes:
        engine: digest of the engine.
        weights: the engine's note about its weights.
        precision: the engine's arithmetic, e.g. "fp32".
        gate: what the engine's accuracy gate said, see ``Manifest.gate_verdict``.
        results: one record per slice.
        series: one summary per input.
        not_read: one message per file or input that could not be read.
        not_written: one message per file that could not be written.
        resumed: number of slices that an earlier run had finished.
    """

    engine: str
    weights: str
    precision: str = ""
    gate: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    resumed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the document that is printed with --json, and written as results.json."""
        return {
            "lsms_rt": __version__,
            "engine": self.engine,
            "weights": self.weights,
            "precision": self.precision,
            "gate": self.gate,
            "results": self.results,
            "series": self.series,
            "not_read": self.not_read,
            "not_written": self.not_written,
        }


# Yields the answers that it is passed, with their number, and shows progress.
Progress = Callable[[Iterator[Answer], int], Iterator[Answer]]


def run(segmenter: Segmenter, inputs: Sequence[Path], request: Request, progress: Progress) -> Report:
    """Segment every slice of every input: inputs in their order, the slices of each from feet to head.

    An unreadable input or file is reported and skipped, and so is a series-level output that cannot be written.

    Args:
        segmenter: the engine.
        inputs: files, folders and archives.
        request: the sentence, and what to write.
        progress: wraps the answers of each input, to show progress.

    Returns:
        The results, and what could not be read or written.

    Raises:
        InputError: nothing could be read, the sentence cannot be used, or the output cannot be written.
        MachineError: a library that an output needs is missing.
    """
    # Validate the request before reading any file.
    text = clean_sentence(request.text)
    segmenter.prepare_sentence(text)
    check_outputs(request)
    weights = segmenter.manifest.weights_note
    report = Report(segmenter.digest, weights, precision=segmenter.precision, gate=segmenter.gate)
    journal: Journal | None = None
    failures: list[LsmsError] = []
    for number, path in enumerate(inputs, 1):
        prefix = "" if len(inputs) == 1 else f"input {number}: "
        left_out = LeftOut()
        slices: list[CtSlice] = []
        try:
            slices = load_slices(path, series=request.series, stated=request.stated, left_out=left_out)
        except LsmsError as error:
            failures.append(error)
            left_out.damaged.append(str(error))
        report.not_read += [prefix + reason for reason in left_out.damaged]
        if not slices:
            continue
        if request.output is not None and journal is None:
            journal = Journal(request.output, _digest(segmenter, text, request, inputs))
            remove_stale_outputs(request.output)
        answers = _answers(segmenter, slices, text, request, journal, report, progress)
        if journal is not None:
            start = "" if len(inputs) == 1 else f"input{number}_"
            failed = write_outputs(answers, request, journal.folder, start, report.engine)
            report.not_written += [prefix + reason for reason in failed]
        report.series.append(series_summary(number, answers))
        # Keep at most one series in memory (gigabytes).
        del slices, answers
    if not report.results:
        raise failures[0] if len(failures) == 1 else InputError(f"nothing could be read: {'; '.join(report.not_read)}")
    if journal is not None:
        _finish(journal.folder, report)
    return report


def _digest(segmenter: Segmenter, text: str, request: Request, inputs: Sequence[Path]) -> str:
    """Identify the request, inputs included: results of two patients must not be mixed."""
    paths = [str(path.resolve()) for path in inputs]
    stated = asdict(request.stated)
    return request_digest(__version__, segmenter.digest, text, stated, request.series, names_shown(), paths)


def _answers(
    segmenter: Segmenter, slices: list[CtSlice], text: str, request: Request, journal: Journal | None, report: Report,
    progress: Progress,
) -> list[Answer]:  # fmt: skip
    """Return the answers of one input's slices, and add their records to the report."""
    first = len(report.results)
    known = [journal.known(first + n, ct, text) if journal else None for n, ct in enumerate(slices)]
    report.resumed += sum(answer is not None for answer in known)
    remaining = [ct for ct, answer in zip(slices, known, strict=True) if answer is None]
    results = segmenter.predict_series(remaining, text, batch=request.batch) if remaining else iter(())

    def answers() -> Iterator[Answer]:
        for n, answer in enumerate(known, first):
            if answer is None:
                answer = _written(next(results), n, journal)
            report.results.append(answer.record)
            yield answer

    return list(progress(answers(), len(slices)))


def _written(result: Segmentation, number: int, journal: Journal | None) -> Answer:
    """Write the files of a new result and record it as finished."""
    names = names_shown()
    record = {"number": number} | result.to_dict(include_text=names)
    answer = Answer(result.ct, result.mask, result.text, record)
    if journal is not None:
        record |= {"overlay": f"{number:04d}_overlay.png", "mask": f"{number:04d}_mask.png"}
        with atomic_file(journal.folder / record["overlay"]) as part:
            result.save_overlay(part, include_text=names)
        with atomic_file(journal.folder / record["mask"]) as part:
            result.save_mask(part)
        journal.add(number, answer)
    return answer


def _finish(folder: Path, report: Report) -> None:
    """Write results.json, and delete images of slices that are no longer part of the input."""
    write_text(folder / RESULTS, json.dumps(report.to_dict(), indent=2) + "\n")
    kept = {record[name] for record in report.results for name in ("overlay", "mask")}
    for kind in ("overlay", "mask"):
        for path in folder.glob(f"[0-9]*_{kind}.png"):
            if path.name not in kept and path.name.split("_")[0].isdecimal():
                path.unlink(missing_ok=True)
