"""Files of an input as a whole: a montage, a mask volume, a DICOM Segmentation.

To add a format: a row of ``OUTPUTS``, a field of ``Request``, and its argument in ``command``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.privacy import names_shown
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import count_text, incomplete_text
from lsms_rt.writing.montage import save_montage

from .folder import OutputFolder
from .request import Request
from .slices import own_error


@dataclass(frozen=True, kw_only=True)
class SeriesOutput:
    """A file that is written per input.

    Attributes:
        file: its name.
        requested: whether a request asks for it.
        option: the option by which a request asks for it; "" if it is written without one.
        applies: whether there is something to write for an input's answers.
        write: writes it: answers, path, request, digest of the engine, number of the input's images without an answer.
        extra: the package's extra that installs what it needs; "" if nothing is needed.
        module: the module that it needs; "" if none.
    """

    file: str
    requested: Callable[[Request], bool]
    option: Callable[[Request], str] = lambda request: ""
    applies: Callable[[Sequence[Answer]], bool] = lambda answers: True
    write: Callable[[Sequence[Answer], Path, Request, str, int], object]
    extra: str = ""
    module: str = ""


def _write_montage(answers: Sequence[Answer], path: Path, request: Request, engine: str, not_read: int) -> None:
    found = [answer for answer in answers if answer.found]
    texts = (incomplete_text(not_read), count_text(len(found), len(answers)), "not for diagnosis")
    save_montage(path, found, "; ".join(filter(None, texts)))


def _write_nifti(answers: Sequence[Answer], path: Path, request: Request, engine: str, not_read: int) -> None:
    from lsms_rt.writing.nifti import write_nifti

    write_nifti(answers, path, not_read=not_read)


def _write_seg(answers: Sequence[Answer], path: Path, request: Request, engine: str, not_read: int) -> None:
    from lsms_rt.writing.seg import write_seg

    write_seg(
        answers, path, engine_digest=engine, include_text=names_shown(), write_empty=request.empty_seg,
        not_read=not_read,
    )  # fmt: skip


OUTPUTS = (
    SeriesOutput(
        file="montage.png",
        requested=lambda request: True,
        applies=lambda answers: len(answers) > 1 and any(answer.found for answer in answers),
        write=_write_montage,
    ),
    SeriesOutput(
        file="mask.nii.gz",
        requested=lambda request: request.nifti,
        option=lambda request: "--nifti",
        write=_write_nifti,
        extra="nifti",
        module="nibabel",
    ),
    SeriesOutput(
        file="segmentation.dcm",
        requested=lambda request: request.needs_seg,
        option=lambda request: "--seg" if request.seg else "--empty-seg",
        write=_write_seg,
        extra="seg",
        module="highdicom",
    ),
)


def check_outputs(request: Request) -> None:
    """Raise if a requested file cannot be written, before a series is computed for it."""
    requested = [output for output in OUTPUTS if output.option(request) and output.requested(request)]
    if requested and request.output is None:
        options = " and ".join(output.option(request) for output in requested)
        raise InputError(f"{options} {'writes' if len(requested) == 1 else 'write'} files; add -o DIR")
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


def series_files(prefix: str) -> list[str]:
    """Return the names of all files of an input as a whole."""
    return [f"{prefix}{output.file}" for output in OUTPUTS]


def write_outputs(
    answers: Sequence[Answer], request: Request, folder: OutputFolder, prefix: str, engine: str, not_read: int
) -> list[str]:
    """Write the requested files of one input.

    A failing output does not prevent the others: a mask volume cannot hold a gap, a Segmentation needs DICOM.

    Args:
        answers: the input's answers, from feet to head.
        request: what to write.
        folder: where to write it.
        prefix: beginning of the file names.
        engine: the engine's digest.
        not_read: number of the input's images without an answer.

    Returns:
        One message per file that could not be written.
    """
    failures = []
    for output in OUTPUTS:
        if not output.requested(request) or not output.applies(answers):
            continue
        try:
            with folder.new_files(f"{prefix}{output.file}", durable=True) as (part,):
                output.write(answers, part, request, engine, not_read)
        except (LsmsError, MemoryError) as error:
            failures.append(f"{output.file}: {own_error(error)}")
    return failures
