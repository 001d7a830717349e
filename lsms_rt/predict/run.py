"""The inputs one after the other; every slice's files are written before the next batch is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..ct import CtSlice
from ..errors import InputError, LsmsError
from ..image import load_slices
from ..labels import names_shown
from ..segmenter import Segmenter
from ..text import clean_sentence
from ..writing.whole import whole
from .answer import Answer
from .journal import Journal, request_digest
from .montage import save_montage
from .volume import summary

RESULTS, MONTAGE, SEG, NIFTI = "results.json", "montage.png", "segmentation.dcm", "mask.nii.gz"


@dataclass(frozen=True)
class Request:
    """What is asked of every slice, and what is written into ``output`` (None: nothing).

    ``window`` (level, width) in HU is what an 8-bit picture shows.  ``seg``: a DICOM Segmentation of each input where
    something was found, with ``empty_seg`` of the others too; ``nifti``: a mask volume of each.
    """

    text: str
    output: Path | None = None
    series: str | None = None
    window: tuple[float, float] | None = None
    batch: int | None = None
    seg: bool = False
    empty_seg: bool = False
    nifti: bool = False


@dataclass
class Report:
    """``results`` of all slices, a row of ``series`` an input, and what could not be read, in words."""

    engine: str
    weights: str
    results: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
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
        }


Progress = Callable[[Iterator[Answer], int], Iterator[Answer]]  # answers and how many there will be -> the answers


def run(segmenter: Segmenter, inputs: Sequence[Path], request: Request, progress: Progress) -> Report:
    """Answer every slice of every input: inputs in their order, the slices of each from feet to head.

    An input, or a file of a series, that cannot be read is reported, and the rest is done.  Raises what the reading
    raised where nothing could be read at all; ``InputError`` where the output cannot be written.
    """
    text = clean_sentence(request.text)  # first: a wrong sentence is reported before anything is read or made
    segmenter.check_sentence(text)
    if request.output is None and (request.seg or request.empty_seg or request.nifti):
        raise InputError("--seg and --nifti write files; say where with -o")
    report = Report(segmenter.digest, segmenter.manifest.weights_note)
    journal: Journal | None = None
    failures: list[LsmsError] = []
    for number, path in enumerate(inputs, 1):
        damaged: list[str] = []
        try:
            slices = load_slices(path, series=request.series, window=request.window, on_damaged=damaged.append)
        except LsmsError as error:
            failures.append(error)
            report.not_read.append(str(error) if len(inputs) == 1 else f"input {number}: {error}")
            continue
        report.not_read += damaged if len(inputs) == 1 else [f"input {number}: {text}" for text in damaged]
        if request.output is not None and journal is None:
            journal = Journal(request.output, _digest(segmenter, text, request))
        answers = _input(segmenter, slices, text, request, journal, report, progress)
        if journal is not None:
            _products(answers, request, journal.folder, number if len(inputs) > 1 else None, report)
        report.series.append(summary(number, answers))
    if failures and not report.results:
        raise failures[0]
    if journal is not None:
        _finish(journal.folder, report)
    return report


def _digest(segmenter: Segmenter, text: str, request: Request) -> str:
    return request_digest(__version__, segmenter.digest, text, request.window, names_shown())


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
    answer = Answer(result.slice, result.mask, result.text, record)
    if journal is not None:
        record |= {"overlay": f"{number:04d}_overlay.png", "mask": f"{number:04d}_mask.png"}
        with whole(journal.folder / record["overlay"]) as part:
            result.save_overlay(part, include_text=names)
        with whole(journal.folder / record["mask"]) as part:
            result.save_mask(part)
        journal.add(number, answer)
    return answer


def _products(answers: list[Answer], request: Request, folder: Path, number: int | None, report: Report) -> None:
    """What is written of an input as a whole, into the results' folder."""
    prefix = "" if number is None else f"input{number}_"
    found = [answer for answer in answers if answer.found]
    if len(answers) > 1 and found:
        with whole(folder / f"{prefix}{MONTAGE}") as part:
            save_montage(part, found, f"found in {len(found)} of {len(answers)} slices; not for diagnosis")
    if request.nifti:
        from ..writing.nifti import write_nifti

        write_nifti(answers, folder / f"{prefix}{NIFTI}")
    if request.seg or request.empty_seg:
        from ..writing.seg import write_seg

        write_seg(
            answers, folder / f"{prefix}{SEG}", engine_digest=report.engine, include_text=names_shown(),
            write_empty=request.empty_seg,
        )  # fmt: skip


def _finish(folder: Path, report: Report) -> None:
    """results.json; and pictures of an earlier run that are no longer part of it are taken away."""
    with whole(folder / RESULTS) as part:
        part.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    kept = {record[name] for record in report.results for name in ("overlay", "mask")}
    for kind in ("overlay", "mask"):
        for path in folder.glob(f"[0-9][0-9][0-9][0-9]_{kind}.png"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
