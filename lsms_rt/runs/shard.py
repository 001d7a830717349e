"""A part of a run: several processes or machines share its inputs, and ``merge`` joins what they wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt import __version__
from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown

from .jobs import Job
from .journal import request_digest

if TYPE_CHECKING:
    from .predictor import Predictor
    from .request import Request

FOLDER = re.compile(r"shard-([1-9][0-9]*)-of-([1-9][0-9]*)")
MAX_SHARDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of the inputs is processed.

    Attributes:
        index: the part, from 1.
        count: number of parts.

    Raises:
        InputError: there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MAX_SHARDS:
            raise InputError(f"--shard: give I/N, e.g. 3/8, with I from 1 to N and N at most {MAX_SHARDS}")

    @property
    def folder(self) -> str:
        """Name of its folder in the output folder."""
        return f"shard-{self.index}-of-{self.count}"

    def numbers(self, inputs: int) -> range:
        """Return the numbers of its inputs, from 1: every ``count``-th one.

        Raises:
            InputError: there are fewer inputs than parts.
        """
        if inputs < self.count:
            raise InputError(f"--shard: {inputs} inputs in {self.count} parts; give at most as many parts as inputs")
        return range(self.index, inputs + 1, self.count)


def in_stable_order(paths: Iterable[Path]) -> list[Path]:
    """Sort inputs by their paths as ``LC_ALL=C sort`` does, so that every machine numbers them alike."""
    return sorted(paths, key=os.fsencode)


def facts(shard: Shard, segmenter: Predictor, jobs: Sequence[Job], request: Request) -> dict[str, Any]:
    """Return what results.json tells of a shard.

    Args:
        shard: the part.
        segmenter: the engine.
        jobs: all inputs of all parts, in their order.
        request: how to read, and which files to write.

    Returns:
        ``index``, ``count``, and ``asked``, a digest of all that the parts have in common.  Of paths it holds only what
        lies below the folder that holds all inputs, which may have another name on every machine.
    """
    root = os.path.commonpath([os.path.abspath(job.path) for job in jobs])
    inputs = [(os.path.relpath(os.path.abspath(j.path), root), j.texts, j.series or request.series) for j in jobs]
    asked = [__version__, segmenter.digest, asdict(request.stated), request.files, names_shown(), inputs]
    return {"index": shard.index, "count": shard.count, "asked": request_digest(segmenter.digest, asked)}
