"""What is asked: inputs, and the sentences of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError, located
from lsms_rt.tokenizer import clean_sentence

if TYPE_CHECKING:
    from lsms_rt.sentences import Reading

    from .predictor import Predictor

EXAMPLE = '[{"input": "series1", "text": ["the cyst", "the largest lesion"]}]'
KEYS = {"input", "text", "series"}
MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input and what it is asked.

    Attributes:
        path: the input.
        texts: the sentences, cleaned, no two of them the same.
        series: which series of the input to read; None for the request's.
    """

    path: Path = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    series: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence that an input is asked.

    Attributes:
        number: from 1, in the order of the input's sentences.
        text: the sentence, cleaned.
        reading: how the engine reads it.
        alone: whether the input has no other sentence; messages and files then have no number of it.
    """

    number: int
    text: str = field(repr=False)
    reading: Reading = field(repr=False)
    alone: bool

    @property
    def name(self) -> str:
        """Its name in messages: "sentence 2", or "" if it is alone."""
        return "" if self.alone else f"sentence {self.number}"


def jobs_of(inputs: Iterable[Path], texts: Sequence[str]) -> list[Job]:
    """Return a job per input, each with all sentences.

    Raises:
        InputError: a sentence is empty or too long, or given twice.
    """
    cleaned = clean_sentences(texts)
    return [Job(path=path, texts=cleaned) for path in inputs]


def read_jobs(path: Path) -> list[Job]:
    """Read a file of jobs: a JSON list of objects with ``input``, ``text`` (one sentence or a list) and ``series``.

    Paths that are not absolute are relative to the file's folder.

    Raises:
        InputError: it cannot be read, or is something else; messages name the entry, from 1, and repeat none of it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"--jobs: the file is larger than {MAX_BYTES >> 20} MiB; give several runs")
        # Windows puts a mark before UTF-8.
        rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--jobs: the file cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"--jobs: the file is not JSON in UTF-8{place}; write e.g. {EXAMPLE}") from error
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--jobs: the file holds no list of inputs; write e.g. {EXAMPLE}")
    return [_job(row, number, path.parent) for number, row in enumerate(rows, 1)]


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; InputError if it has a key twice, of which one would be lost."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise InputError('--jobs: an object has a key twice; several sentences are a list: "text": [...]')
    return dict(pairs)


def _job(row: Any, number: int, folder: Path) -> Job:
    where = f"--jobs, entry {number}"
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object; write e.g. {EXAMPLE}")
    unknown, missing = len(set(row) - KEYS), [key for key in ("input", "text") if key not in row]
    if unknown or missing:
        what = f"no {missing[0]!r}" if missing else f"{unknown} unknown {'key' if unknown == 1 else 'keys'}"
        raise InputError(f"{where}: {what}; give input, text, and if needed series")
    texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
    series = row.get("series")
    named = series is None or (isinstance(series, (str, int)) and not isinstance(series, bool) and series != "")
    if not texts:
        raise InputError(f"{where}: text is an empty list; give at least one sentence")
    if not isinstance(row["input"], str) or not named:
        raise InputError(f"{where}: input is a path, text a sentence or a list of them, series a text or number")
    # It would be the folder of the file, so whatever images lie there.
    if not row["input"].strip():
        raise InputError(f"{where}: input is empty; give a path")
    try:
        cleaned = clean_sentences(texts)
    except InputError as error:
        raise located(error, f"{where}: ") from error
    return Job(path=folder / row["input"], texts=cleaned, series=None if series is None else str(series))


def clean_sentences(texts: Sequence[str]) -> tuple[str, ...]:
    """Return sentences cleaned; InputError if one is empty or too long, or given twice."""
    cleaned: list[str] = []
    numbers: dict[str, int] = {}
    for number, text in enumerate(map(clean_sentence, texts), 1):
        # Tokenizers ignore case.
        same = numbers.setdefault(text.casefold(), number)
        if same != number:
            # Left out, it would change the numbers of those after it.
            raise InputError(f"sentences {same} and {number} are the same; give each sentence once")
        cleaned.append(text)
    return tuple(cleaned)


def read_sentences(segmenter: Predictor, jobs: Mapping[int, Job]) -> dict[int, list[Sentence]]:
    """Read and encode all sentences of a run, before any input is read.

    Args:
        segmenter: the engine.
        jobs: by their numbers.

    Returns:
        The sentences of each job, by its number.

    Raises:
        SentenceNotUnderstoodError: one is not understood, and the segmenter refuses such.
        InputError: one cannot be used with this engine.
    """
    # Jobs may share sentences, so each is read once.
    readings: dict[str, Reading] = {}
    differ, found = len({job.texts for job in jobs.values()}) > 1, dict[int, list[Sentence]]()
    for n, job in jobs.items():
        alone, sentences = len(job.texts) == 1, list[Sentence]()
        for number, text in enumerate(job.texts, 1):
            if text not in readings:
                where = f"input {n}: " if differ else ""
                readings[text] = _read(segmenter, text, where if alone else f"{where}sentence {number}: ")
            sentences.append(Sentence(number=number, text=text, reading=readings[text], alone=alone))
        found[n] = sentences
    return found


def _read(segmenter: Predictor, text: str, where: str) -> Reading:
    try:
        segmenter.prepare_sentence(text)
        return segmenter.read_sentence(text)
    except InputError as error:
        raise located(error, where) from error
