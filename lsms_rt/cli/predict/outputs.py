"""Files of an input as a whole: a montage, a mask volume, a DICOM Segmentation.

To add a format: a row of ``OUTPUTS``, a field of ``Request``, and its argument in ``command``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsms_rt.atomic import atomic_file, unwritable
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.privacy import names_shown
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import count_text
from lsms_rt.writing.montage import save_montage

from .request import Request

RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class SeriesOutput:
    """A file that is written per input.

    Attributes:
        file: its name.
        requested: whether a request asks for it.
        option: the option by which a request asks for it; "" if it is written without one.
        applies: whether there is something to write for an input's answers.
        write: writes it: answers, path, request, digest of the engine.
        extra: the package's extra that installs what it needs; "" if nothing is needed.
        module: the module that it needs; "" if none.
    """

    file: str
    requested: Callable[[Request], bool]
    option: Callable[[Request], str] = lambda request: ""
    applies: Callable[[Sequence[Answer]], bool] = lambda answers: True
    write: Callable[[Sequence[Answer], Path, Request, str], object]
    extra: str = ""
    module: str = ""


def _write_montage(answers: Sequence[Answer], path: Path, request: Request, engine: str) -> None:
    found = [answer for answer in answers if answer.found]
    with atomic_file(path) as part:
        save_montage(part, found, f"{count_text(len(found), len(answers))}; not for diagnosis")


def _write_nifti(answers: Sequence[Answer], path: Path, request: Request, engine: str) -> None:
    from lsms_rt.writing.nifti import write_nifti

    write_nifti(answers, path)


def _write_seg(answers: Sequence[Answer], path: Path, request: Request, engine: str) -> None:
    from lsms_rt.writing.seg import write_seg

    write_seg(answers, path, engine_digest=engine, include_text=names_shown(), write_empty=request.empty_seg)


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


def remove_stale_outputs(folder: Path) -> None:
    """Delete series-level outputs of an earlier run: slices may have changed since, or been added."""
    try:
        for name in (RESULTS, *(output.file for output in OUTPUTS)):
            for path in (folder / name, *folder.glob(f"input[0-9]*_{name}")):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error) from error


def write_outputs(answers: Sequence[Answer], request: Request, folder: Path, prefix: str, engine: str) -> list[str]:
    """Write the requested files of one input.

    A failing output does not prevent the others: a mask volume cannot hold a gap, a Segmentation needs DICOM.

    Args:
        answers: the input's answers, from feet to head.
        request: what to write.
        folder: where to write it.
        prefix: beginning of the file names.
        engine: the engine's digest.

    Returns:
        One message per file that could not be written.
    """
    failures = []
    for output in OUTPUTS:
        if not output.requested(request) or not output.applies(answers):
            continue
        try:
            output.write(answers, folder / f"{prefix}{output.file}", request, engine)
        except LsmsError as error:
            failures.append(f"{output.file}: {error}")
    return failures
