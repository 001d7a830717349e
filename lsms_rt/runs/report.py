"""What a run did: the document that becomes results.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lsms_rt import __version__
from lsms_rt.bench.provenance import versions
from lsms_rt.errors import MachineError
from lsms_rt.privacy import names_shown

from .jobs import Sentence
from .predictor import Predictor

# Packages that what is read and written depends on.
PACKAGES = ("numpy", "pydicom", "pillow", "tokenizers", "nibabel", "highdicom", "pylibjpeg", "pyjpegls", "python-gdcm")


@dataclass(kw_only=True)
class Report:
    """What a run did.

    Attributes:
        engine: digest of the engine.
        weights: the engine's note about its weights.
        precision: the engine's arithmetic, e.g. "fp32".
        gate: what the engine's accuracy gate said, see ``Manifest.gate_verdict``.
        sentences: how each sentence of each input is read: ``input`` and ``sentence``, the numbers from 1 of both,
            ``understood``, ``unknown_words``, ``side``, ``notes``; its words only if names are shown.
        inputs: number of inputs that were given, those of other shards included.
        shard: which part of the inputs it is, see ``shard.facts``; empty if it is all.
        results: one record per slice and sentence; ``input`` and ``sentence`` as in ``sentences``.
        series: one summary per input and sentence that has results; ``input`` and ``sentence`` likewise.
        files: one row per file of an input as a whole: ``input``, ``sentence`` (None for a file of all), ``file``, and
            of a DICOM object its UIDs.
        not_read: one message per file or input that could not be read.
        not_computed: one message per slice or input that could be read and has no result.
        not_written: one message per file that could not be written.
        resumed: number of answers that an earlier run had finished.
        run: when and where it ran: see :meth:`add_run`.
        kept: one message per file that was changed by hand, and renamed.
        removed: names of files of an earlier run that are no longer part of the results, and were deleted.
        error: the first unexpected error, to be raised once the rest is reported; None if there was none.
        machine_error: the first slice's that this machine could not compute, e.g. for lack of memory: another attempt
            may; None if there was none.
    """

    engine: str
    weights: str
    precision: str = ""
    gate: str = ""
    sentences: list[dict[str, Any]] = field(default_factory=list)
    inputs: int = 1
    shard: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    not_computed: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    resumed: int = 0
    run: dict[str, Any] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    error: Exception | None = None
    machine_error: MachineError | None = None

    @classmethod
    def of(cls, segmenter: Predictor, sentences: Mapping[int, Sequence[Sentence]], inputs: int) -> Report:
        """Return the report of a run that has not begun, with the sentences of each input by its number."""
        manifest = segmenter.manifest
        return cls(
            engine=segmenter.digest,
            weights=manifest.weights_note,
            precision=segmenter.precision,
            gate=segmenter.gate,
            sentences=[_reading_of(n, sentence) for n, row in sentences.items() for sentence in row],
            inputs=inputs,
            run={
                "backend": manifest.backend,
                "backend_version": segmenter.backend_version,
                "device": segmenter.device,
                "versions": {"python": platform.python_version()} | versions(PACKAGES),
            },
        )

    def add_run(self, started: datetime, seconds: Mapping[str, float], slices: int) -> None:
        """Add what is known at the end.

        Args:
            started: when the run began that first wrote to the output folder.
            seconds: time of each step, and in all, of this run.
            slices: number of slices that were read.
        """
        self.run = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": {step: round(value, 3) for step, value in seconds.items()},
            "slices": slices,
            "answers": len(self.results),
            "found": sum(bool(record["found"]) for record in self.results),
            "resumed": self.resumed,
        } | self.run

    @property
    def is_complete(self) -> bool:
        """Return whether everything was read and computed."""
        return not (self.not_read or self.not_computed)

    def to_dict(self) -> dict[str, Any]:
        """Return the document that is printed with --json, and written as results.json."""
        return {
            "lsms_rt": __version__,
            "engine": self.engine,
            "weights": self.weights,
            "precision": self.precision,
            "gate": self.gate,
            "run": self.run,
            "sentences": self.sentences,
            "inputs": self.inputs,
            **({"shard": self.shard} if self.shard else {}),
            "results": self.results,
            "series": self.series,
            "files": self.files,
            "not_read": self.not_read,
            "not_computed": self.not_computed,
            "not_written": self.not_written,
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON, without NaN and Infinity, which are none."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def _reading_of(number: int, sentence: Sentence) -> dict[str, Any]:
    names = names_shown()
    text = {"text": sentence.text} if names else {}
    reading = sentence.reading
    words = reading.to_dict(include_text=names) | {"notes": list(reading.notes(names=names))}
    return {"input": number, "sentence": sentence.number} | text | words
