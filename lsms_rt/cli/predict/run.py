"""The inputs one after the other; every slice's files are written before the next batch is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.atomic import atomic_file
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.privacy import names_shown
from lsms_rt.reading.load import load_slices
from lsms_rt.segmenter import Segmenter
from lsms_rt.tokenizer import clean_sentence
from lsms_rt.writing.answer import Answer

from .journal import Journal, request_digest
from .outputs import RESULTS, Request, check_products, forget_products, write_products
from .volume import summary


@dataclass
class Report:
    """``results`` of all slices, a row of ``series`` an input; what could not be read or written, in words."""

    engine: str
    weights: str
    results: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    resumed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The document that is printed and written."""
        return {
            "lsms_rt": __version__,
            "engine": self.engine,
            "weights": self.weights,
            "results": self.results,
            "series": self.series,
            "not_read": self.not_read,
            "not_written": self.not_written,
        }


Progress = Callable[[Iterator[Answer], int], Iterator[Answer]]  # answers and how many there will be -> the answers


def run(segmenter: Segmenter, inputs: Sequence[Path], request: Request, progress: Progress) -> Report:
    """Answer every slice of every input: inputs in their order, the slices of each from feet to head.

    An input, or a file of a series, that cannot be read is reported, and the rest is done; so is a file of an input as
    a whole that cannot be made of its answers.  Raises what the reading raised where nothing could be read at all;
    ``InputError`` where the output cannot be written, ``MachineError`` where a library for it is missing.
    """
    text = clean_sentence(request.text)  # first: what is wrong with the request is told before anything is read
    segmenter.prepare_sentence(text)
    check_products(request)
    report = Report(segmenter.digest, segmenter.manifest.weights_note)
    journal: Journal | None = None
    failures: list[LsmsError] = []
    for number, path in enumerate(inputs, 1):
        prefix = "" if len(inputs) == 1 else f"input {number}: "
        damaged: list[str] = []
        slices: list[CtSlice] = []
        try:
            slices = load_slices(path, series=request.series, window=request.window, on_damaged=damaged.append)
        except LsmsError as error:
            failures.append(error)
            damaged.append(str(error))
        report.not_read += [prefix + reason for reason in damaged]
        if not slices:
            continue
        if request.output is not None and journal is None:
            journal = Journal(request.output, _digest(segmenter, text, request, inputs))
            forget_products(request.output)
        answers = _input(segmenter, slices, text, request, journal, report, progress)
        if journal is not None:
            start = "" if len(inputs) == 1 else f"input{number}_"
            failed = write_products(answers, request, journal.folder, start, report.engine)
            report.not_written += [prefix + reason for reason in failed]
        report.series.append(summary(number, answers))
        del slices, answers  # a series may take gigabytes: there are never two
    if not report.results:
        raise failures[0] if len(failures) == 1 else InputError(f"nothing could be read: {'; '.join(report.not_read)}")
    if journal is not None:
        _finish(journal.folder, report)
    return report


def _digest(segmenter: Segmenter, text: str, request: Request, inputs: Sequence[Path]) -> str:
    """Other inputs are another request: one patient's results are not to be mixed with another's."""
    paths = [str(path.resolve()) for path in inputs]
    return request_digest(__version__, segmenter.digest, text, request.window, request.series, names_shown(), paths)


def _input(
    segmenter: Segmenter, slices: list[CtSlice], text: str, request: Request, journal: Journal | None, report: Report,
    progress: Progress,
) -> list[Answer]:  # fmt: skip
    first = len(report.results)
    known = [journal.known(first + n, ct, text) if journal else None for n, ct in enumerate(slices)]
    report.resumed += sum(answer is not None for answer in known)
    left = [ct for ct, answer in zip(slices, known, strict=True) if answer is None]
    fresh = segmenter.predict_series(left, text, batch=request.batch) if left else iter(())

    def answers() -> Iterator[Answer]:
        for n, answer in enumerate(known, first):
            if answer is None:
                answer = _answered(next(fresh), n, journal)
            report.results.append(answer.record)
            yield answer

    return list(progress(answers(), len(slices)))


def _answered(result: Any, number: int, journal: Journal | None) -> Answer:
    """The record of a fresh result; its files are written, then it is noted as done."""
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
    """results.json; and pictures of an earlier run that are no longer part of it are taken away."""
    with atomic_file(folder / RESULTS) as part:
        part.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    kept = {record[name] for record in report.results for name in ("overlay", "mask")}
    for kind in ("overlay", "mask"):
        for path in folder.glob(f"[0-9]*_{kind}.png"):
            if path.name not in kept and path.name.split("_")[0].isdecimal():
                path.unlink(missing_ok=True)
