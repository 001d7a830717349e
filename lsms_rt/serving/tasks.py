"""What the server and a worker process say to each other, over a pipe between parent and child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.errors import InputError, LsmsError, MachineError, SentenceNotUnderstoodError, SeveralSeriesError
from lsms_rt.reading.stated import NOTHING, Stated
from lsms_rt.sentences.reading import NO_WORD, NOT_UNDERSTOOD


@dataclass(frozen=True, kw_only=True)
class Infer:
    """Segment slices that came as a tensor or as the bytes of one file; the answer is arrays.

    Attributes:
        model: name of the engine.
        image: int16 or float32 (slices, rows, columns) in HU, in the usual axial view; or the bytes of a DICOM file.
        sentences: one or more.
        spacing: (between rows, between columns) in mm of a tensor; None if unknown.
        scratch: folder to make for the bytes of a file; who gives the task deletes it, even if the worker is ended.
    """

    model: str
    image: np.ndarray | bytes = field(repr=False)
    sentences: tuple[str, ...] = field(repr=False)
    spacing: tuple[float, float] | None = None
    scratch: Path | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Read an uploaded image: what it is, and a volume for viewers.

    Attributes:
        source: the uploaded file or folder.
        output: new folder for the volume.
        series: which series, where there are several.
        stated: facts that the image does not hold.
    """

    source: Path = field(repr=False)
    output: Path = field(repr=False)
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment an uploaded image and write result files, as ``lsms-rt predict -o`` does.

    Attributes:
        model: name of the engine.
        source: the uploaded file or folder.
        output: folder for the results.
        grid: the volume of the reading that is asked about; masks for viewers get its grid.
        sentences: one or more.
        series: which series, where there are several.
        stated: facts that the image does not hold.
        files: kinds of files to write besides masks and JSON: names of ``Request``'s switches.
    """

    model: str
    source: Path = field(repr=False)
    output: Path = field(repr=False)
    grid: Path = field(repr=False)
    sentences: tuple[str, ...] = field(repr=False)
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Segment a bundled slice with every engine: shows that a worker works."""


Task = Infer | Describe | Segment | Probe


@dataclass(frozen=True)
class Opened:
    """A worker has opened its engines, and each has segmented a slice.

    Attributes:
        models: name -> what is told of it.
    """

    models: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Progress:
    """Some of a task's slices are done."""

    done: int
    total: int


@dataclass(frozen=True)
class Done:
    """A task is done.

    Attributes:
        value: its result.
        seconds: time by step.
    """

    value: Any = field(repr=False)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A task ended without a result.

    Attributes:
        kind: name of the error's class.
        message: what happened and what to do; it repeats nothing of the image or the sentence.
        status: the HTTP status that says the same.
        series: the series of an image that holds several, see SeveralSeriesError.
    """

    kind: str
    message: str
    status: int
    series: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Cancelled:
    """A task was cancelled, as was asked."""


# Where our server lists the words that may be said.
WORDS = "GET /models/NAME/words"

Reply = Opened | Progress | Done | Failed | Cancelled


def failed(error: BaseException, words: str = WORDS) -> Failed:
    """Return an error as a reply.  Of an unexpected one only the kind is told: its text may hold anything.

    Args:
        error: what happened.
        words: where the one who asks finds the words that may be said.
    """
    kind = type(error).__name__
    if isinstance(error, SentenceNotUnderstoodError):
        return Failed(kind, _not_understood(error, words), 422)
    if isinstance(error, LsmsError):
        status = 400 if isinstance(error, InputError) else 503 if isinstance(error, MachineError) else 500
        return Failed(kind, str(error), status, error.series if isinstance(error, SeveralSeriesError) else ())
    if isinstance(error, MemoryError):
        return Failed(kind, "the server has not enough memory for this image; send fewer slices", 503)
    return Failed(kind, f"unexpected {kind}; the server's log has its trace", 500)


def _not_understood(error: SentenceNotUnderstoodError, words: str) -> str:
    """Word it for one who asks a server; words of the sentence that may be a name are told by their numbers."""
    if error.reading is None:
        return str(error)
    said = NOT_UNDERSTOOD if error.reading.answerable else NO_WORD
    # Of several sentences, which one it is stands before.
    which = str(error).partition(said)[0]
    why = "; ".join(error.reading.notes(names=False))
    return f"{which}{said}{': ' if why else ''}{why}; {words} lists what may be said"
