"""What a run did: the document that becomes results.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lsms_rt import __version__


@dataclass(kw_only=True)
class Report:
    """What a run did.

    Attributes:
        engine: digest of the engine.
        weights: the engine's note about its weights.
        precision: the engine's arithmetic, e.g. "fp32".
        gate: what the engine's accuracy gate said, see ``Manifest.gate_verdict``.
        sentence: how the sentence is read: ``understood``, ``unknown_words``, ``side``, ``notes``; its words only if
            names are shown.
        inputs: number of inputs that were given.
        results: one record per slice; ``input`` is the input's number, from 1.
        series: one summary per input that has results; ``input`` as in ``results``.
        not_read: one message per file or input that could not be read.
        not_computed: one message per slice or input that could be read and has no result.
        not_written: one message per file that could not be written.
        resumed: number of slices that an earlier run had finished.
        kept: one message per file that was changed by hand, and renamed.
        error: the first unexpected error, to be raised once the rest is reported; None if there was none.
    """

    engine: str
    weights: str
    precision: str = ""
    gate: str = ""
    sentence: dict[str, Any] = field(default_factory=dict)
    inputs: int = 1
    results: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    not_computed: list[str] = field(default_factory=list)
    not_written: list[str] = field(default_factory=list)
    resumed: int = 0
    kept: list[str] = field(default_factory=list)
    error: Exception | None = None

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
            "sentence": self.sentence,
            "inputs": self.inputs,
            "results": self.results,
            "series": self.series,
            "not_read": self.not_read,
            "not_computed": self.not_computed,
            "not_written": self.not_written,
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON, without NaN and Infinity, which are none."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
