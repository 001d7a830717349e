"""What the server was started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB = 2**20
# of the masks of one answer in memory: sentences x slices x rows x columns
MAX_MASK_VOXELS = 2**28


@dataclass(frozen=True, kw_only=True)
class Model:
    """An engine that is served.

    Attributes:
        name: by which requests name it.
        path: the engine directory.
        digest: the digest that it must have; None: no check.
    """

    name: str
    path: Path
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a server.

    Attributes:
        models: the engines; names are unique.
        workers: number of worker processes, each with all engines.
        devices: one device per worker, e.g. ("cuda:0", "cuda:1"); empty: the engines' own choice.
        threads: CPU threads of a worker; None: the cores shared out among the workers.
        runtime: further keyword arguments of ``Segmenter``.
        api_key: the key that requests must bear; None: no key is asked for.
        queue: tasks that may wait; more are answered with 429.
        time_limit: seconds that a task may run.
        grace: seconds that a cancelled task, or one at shutdown, may take to end.
        idle: seconds after which an unused upload or a finished job is deleted.
        upload_bytes: size of all files that were sent, and of one request; as much again may be made of them.
        uploads: number of uploads that are kept at the same time.
    """

    models: tuple[Model, ...]
    workers: int = 1
    devices: tuple[str, ...] = ()
    threads: int | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    queue: int = 32
    time_limit: float = 600.0
    grace: float = 10.0
    idle: float = 3600.0
    upload_bytes: int = 2048 * MIB
    uploads: int = 64
