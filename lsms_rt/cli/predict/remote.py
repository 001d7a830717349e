"""``lsms-rt predict --server URL``: the server computes, the files come here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsms_rt.client import Client
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.runs.jobs import Job
from lsms_rt.runs.request import SWITCHES, Request

from ..terminal import is_interactive, show_step, status

# Options that say how an engine of this machine runs.
LOCAL = ("threads", "device", "batch", "digest", "shard")


def ask(arguments: argparse.Namespace, jobs: Sequence[Job], request: Request) -> list[dict[str, Any]]:
    """Ask the server about every input, and save the files; return the documents of results.json, one per input.

    Of several inputs, each has a folder of its own, ``input1``; an input that cannot be used is reported and left out.

    Raises:
        InputError: an option has no meaning here, or nothing could be used.
        ServerError: there is no answer.
    """
    files = _checked(arguments, request)
    if request.output is not None:
        # For this user alone; of several inputs each has a folder in it.
        request.output.mkdir(mode=0o700, parents=True, exist_ok=True)
    documents: list[dict[str, Any]] = []
    first: LsmsError | None = None
    with Client(arguments.server, api_key=_key(arguments.api_key_file), model=_model(arguments.engine)) as client:
        for number, job in enumerate(jobs, 1):
            name = "" if len(jobs) == 1 else f"input{number}"
            try:
                document = _of_input(client, job, request, files, name)
            except InputError as error:
                first = first or error
                status(f"not read: input {number}: {error}")
                continue
            for key in ("sentences", "results", "series", "files"):
                document[key] = [row | {"input": number} for row in document[key]]
            documents.append(document)
    if first is not None and not documents:
        raise first
    return documents


def _of_input(client: Client, job: Job, request: Request, files: Sequence[str], name: str) -> dict[str, Any]:
    def progress(done: int, total: int) -> None:
        if is_interactive():
            show_step("slice", done, total)

    facts = {key: value for key, value in asdict(request.stated).items() if value}
    series = job.series or request.series
    image = client.send(job.path, **(facts if series is None else facts | {"series": series}))
    try:
        answered = client.ask(image, job.texts, files=files, progress=progress)
        if request.output is not None:
            client.save(answered, request.output / name)
        return client.results(answered)
    finally:
        client.discard(image)


def _checked(arguments: argparse.Namespace, request: Request) -> list[str]:
    """Return the kinds of files that are asked for; raise for options that have no meaning with a server."""
    given = [f"--{name}" for name in LOCAL if getattr(arguments, name) is not None]
    given += [f"--{name}" for name in ("lenient", "trust") if getattr(arguments, name)]
    if given:
        raise InputError(f"{' and '.join(given)} is for an engine on this machine; leave it out with --server")
    files = [name for name in SWITCHES if getattr(request, name)]
    if files and request.output is None:
        raise InputError("files are asked for, but no place for them; add -o DIR")
    if request.output is not None and request.output.is_dir() and os.listdir(request.output):
        raise InputError("the output folder is not empty, and a server's run does not resume; give a new one with -o")
    return files


def _model(engine: Path) -> str:
    """Return the name by which the server knows an engine: that of its folder."""
    return engine.name.removesuffix(".engine")


def _key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError("--api-key-file cannot be read as ASCII text; check its path and permissions") from error
