"""Files of an input as a whole: a montage, mask volumes, DICOM objects.

To add a format: a row of ``OUTPUTS``, a field of ``Request``, and its argument in ``command``.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.privacy import names_shown
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.by_sentence import by_sentence
from lsms_rt.writing.caption import count_text, incomplete_text
from lsms_rt.writing.montage import save_montage

from .folder import OutputFolder
from .request import Request
from .slices import own_error


@dataclass(frozen=True, kw_only=True)
class InputAnswers:
    """What there is to write of an input.

    Attributes:
        answers: of all slices, from feet to head, and sentences.
        request: what to write.
        engine: the engine's digest.
        not_read: number of the input's images without an answer.
        when: the start of the run; None for now.
        written: returns where an output's file is that was written before; None if it was not.
    """

    answers: Sequence[Answer]
    request: Request
    engine: str
    not_read: int
    when: datetime | None
    written: Callable[[str], Path | None]

    @property
    def origin(self) -> dict[str, Any]:
        """Arguments that all writers of DICOM objects have."""
        return {
            "engine_digest": self.engine,
            "include_text": names_shown() or self.request.texts,
            "not_read": self.not_read,
            "when": self.when,
        }


@dataclass(frozen=True, kw_only=True)
class SeriesOutput:
    """A file that is written per input, or per sentence of an input.

    Attributes:
        file: its name.
        per_sentence: whether there is one for each sentence; of several, the second one's is "NAME_2.EXTENSION".
        requested: whether a request asks for it.
        option: the option by which a request asks for it; "" if it is written without one.
        applies: whether there is something to write for an input's answers.
        write: writes it, or those of each sentence; a file for which there is nothing to write is left out.  May return
            why files of some sentences could not be written.
        extra: the package's extra that installs what it needs; "" if nothing is needed.
        module: the module that it needs; "" if none.
    """

    file: str
    per_sentence: bool = False
    requested: Callable[[Request], bool]
    option: Callable[[Request], str] = lambda request: ""
    applies: Callable[[Sequence[Answer]], bool] = lambda answers: True
    write: Callable[[InputAnswers, Sequence[Path]], list[str] | None]
    extra: str = ""
    module: str = ""

    def files(self, sentences: int) -> list[str]:
        """Return the names of its files, for a number of sentences."""
        if not self.per_sentence or sentences == 1:
            return [self.file]
        stem, _, extension = self.file.partition(".")
        return [f"{stem}_{number}.{extension}" for number in range(1, sentences + 1)]

    def is_file(self, name: str) -> bool:
        """Return whether a file of this name is one of its files, for any number of sentences."""
        stem, _, extension = self.file.partition(".")
        number = r"(_[1-9][0-9]*)?" if self.per_sentence else ""
        return re.fullmatch(rf"{re.escape(stem)}{number}\.{re.escape(extension)}", name) is not None


def _write_montage(given: InputAnswers, paths: Sequence[Path]) -> None:
    found = [answer for answer in given.answers if answer.found]
    # of several sentences, each slice once
    slices = len({id(answer.ct) for answer in given.answers})
    in_slices = len({id(answer.ct) for answer in found})
    texts = (incomplete_text(given.not_read), count_text(in_slices, slices), "not for diagnosis")
    names = {sentence.results[0].text: sentence.name for sentence in by_sentence(given.answers)}
    save_montage(paths[0], found, "; ".join(filter(None, texts)), names if len(names) > 1 else None)


def _write_nifti(given: InputAnswers, paths: Sequence[Path]) -> list[str]:
    from lsms_rt.writing.nifti import write_nifti

    sentences, failures = by_sentence(given.answers), []
    slices = [answer.ct for answer in given.answers]
    for sentence, path in zip(sentences, paths, strict=True):
        try:
            write_nifti(sentence.results, path, slices=slices, not_read=given.not_read)
        except (LsmsError, MemoryError) as error:
            failures.append(f"{MASK.files(len(sentences))[sentence.number - 1]}: {own_error(error)}")
    return failures


def _write_seg(given: InputAnswers, paths: Sequence[Path]) -> None:
    from lsms_rt.writing.seg import write_seg

    request = given.request
    write_seg(given.answers, paths[0], write_empty=request.empty_seg, seg_type=request.seg_type, **given.origin)


def _write_sr(given: InputAnswers, paths: Sequence[Path]) -> None:
    from lsms_rt.writing.sr import write_sr

    seg = given.written(SEG)
    if seg is None and any(answer.found for answer in given.answers):
        raise InputError("its Segmentation, to which it refers, was not written")
    write_sr(given.answers, paths[0], seg=seg, **given.origin)


def _write_sc(given: InputAnswers, paths: Sequence[Path]) -> None:
    from lsms_rt.writing.secondary_capture import write_sc

    write_sc(given.answers, lambda number: paths[number - 1], **given.origin)


def _write_rtstruct(given: InputAnswers, paths: Sequence[Path]) -> None:
    from lsms_rt.writing.rtstruct import write_rtstruct

    write_rtstruct(given.answers, paths[0], **given.origin)


SEG = "segmentation.dcm"
MASK = SeriesOutput(
    file="mask.nii.gz",
    per_sentence=True,
    requested=lambda request: request.nifti,
    option=lambda request: "--nifti",
    write=_write_nifti,
    extra="nifti",
    module="nibabel",
)
OUTPUTS = (
    SeriesOutput(
        file="montage.png",
        requested=lambda request: True,
        applies=lambda answers: len({id(answer.ct) for answer in answers}) > 1 and any(a.found for a in answers),
        write=_write_montage,
    ),
    MASK,
    SeriesOutput(
        file=SEG,
        requested=lambda request: request.needs_seg,
        option=lambda request: "--seg" if request.seg else "--empty-seg" if request.empty_seg else "--sr",
        write=_write_seg,
        extra="seg",
        module="highdicom",
    ),
    # after the Segmentation, to which it refers
    SeriesOutput(
        file="report.dcm",
        requested=lambda request: request.sr,
        option=lambda request: "--sr",
        write=_write_sr,
        extra="seg",
        module="highdicom",
    ),
    SeriesOutput(
        file="key.dcm",
        per_sentence=True,
        requested=lambda request: request.sc,
        option=lambda request: "--sc",
        write=_write_sc,
    ),
    SeriesOutput(
        file="rtstruct.dcm",
        requested=lambda request: request.rtstruct,
        option=lambda request: "--rtstruct",
        write=_write_rtstruct,
    ),
)


def check_outputs(request: Request) -> None:
    """Raise if a requested file cannot be written, before a series is computed for it."""
    requested = [output for output in OUTPUTS if output.option(request) and output.requested(request)]
    options = list(dict.fromkeys(output.option(request) for output in requested))
    if requested and request.output is None:
        raise InputError(f"{' and '.join(options)} {'writes' if len(options) == 1 else 'write'} files; add -o DIR")
    if request.seg_type != "binary" and not request.needs_seg:
        raise InputError(f"--seg-type {request.seg_type} is of a DICOM SEG, which is not asked for; add --seg")
    for output in requested:
        if output.module and importlib.util.find_spec(output.module) is None:
            raise MissingDependencyError(
                f"{output.option(request)} needs {output.module}; pip install 'lsms-rt[{output.extra}]'"
            )


def check_place(output: Path | None, inputs: Sequence[Path]) -> None:
    """Raise if the output folder lies in an input: the next run would read it, and count the files in it."""
    if output is None:
        return
    folder = Path(os.path.realpath(output))
    for number, path in enumerate(inputs, 1):
        if os.path.isdir(path) and folder.is_relative_to(os.path.realpath(path)):
            name = "the input" if len(inputs) == 1 else f"input {number}"
            raise InputError(f"the output folder lies in {name}, where it would be read; choose another one with -o")


def is_series_file(name: str, prefix: str) -> bool:
    """Return whether a name, which begins with an input's ``prefix``, is that of a file of the input as a whole."""
    return name.startswith(prefix) and any(output.is_file(name[len(prefix) :]) for output in OUTPUTS)


def write_outputs(
    answers: Sequence[Answer], request: Request, folder: OutputFolder, prefix: str, engine: str, not_read: int,
    when: datetime | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Write the requested files of one input.

    A failing output does not prevent the others: a mask volume cannot hold a gap, a Segmentation needs DICOM.

    Args:
        answers: the input's answers, from feet to head, for all sentences.
        request: what to write.
        folder: where to write it.
        prefix: beginning of the file names.
        engine: the engine's digest.
        not_read: number of the input's images without an answer.
        when: the start of the run, which DICOM objects tell; None for now.

    Returns:
        The files, as in results.json, and one message per file that could not be written.
    """
    given = InputAnswers(
        answers=answers, request=request, engine=engine, not_read=not_read, when=when,
        written=lambda file: folder.written(f"{prefix}{file}"),
    )  # fmt: skip
    sentences, files, failures = len(by_sentence(answers)), list[dict[str, Any]](), list[str]()
    for output in OUTPUTS:
        if not output.requested(request) or not output.applies(answers):
            continue
        try:
            names = [f"{prefix}{file}" for file in output.files(sentences)]
            with folder.new_files(*names, durable=True) as parts:
                failures += output.write(given, parts) or []
            for number, name in enumerate(names, 1):
                if (path := folder.written(name)) is not None:
                    files.append({"file": name, "sentence": number if output.per_sentence else None} | _uids(path))
        except (LsmsError, MemoryError) as error:
            failures.append(f"{output.file}: {own_error(error)}")
    return files, failures


def _uids(path: Path) -> dict[str, str]:
    """Return by what an archive knows a DICOM object; nothing for other files."""
    if not path.name.endswith(".dcm"):
        return {}
    from pydicom import dcmread

    names = {"sop_class_uid": "SOPClassUID", "sop_instance_uid": "SOPInstanceUID", "series_uid": "SeriesInstanceUID"}
    ds = dcmread(path, stop_before_pixels=True, specific_tags=list(names.values()))
    return {key: str(ds[name].value) for key, name in names.items()}
