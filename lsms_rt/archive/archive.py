"""Predict every series of an archive: what has no result yet is passed to the actors, until every series has one."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.atomic import PART, unwritable, write_text
from lsms_rt.engine import open_directory
from lsms_rt.errors import InputError, MachineError
from lsms_rt.privacy import names_shown
from lsms_rt.runs.jobs import clean_sentences
from lsms_rt.runs.journal import request_digest
from lsms_rt.runs.lock import lock
from lsms_rt.runs.outputs import check_outputs, check_place
from lsms_rt.sentences import open_reader

from .cluster import Actors, cluster, processed
from .measurements import FILE, Counts, write_measurements
from .rows import Row, rows_of
from .state import State
from .worker import CRASHED, KINDS, Settings

MANIFEST = "archive.json"
LOCK = "archive.lock"
# If so many series per actor are all that ended, and a crash, then it is not the series.
MAX_CRASHES = 4
# Kinds of failures that another run may not have.
AGAIN = ("machine", "engine", "unexpected")
# Called with how many series have ended, how many of them without a result, and how many there are.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Archived:
    """What was done.

    Attributes:
        counts: of all series.
        resumed: number of series that an earlier run had finished.
        seconds: that this run took.
    """

    counts: Counts
    resumed: int
    seconds: float


def run_archive(
    source: Path, settings: Settings, actors: Actors, *, address: str | None, retry: bool, progress: Progress
) -> Archived:
    """Predict every series that has no result yet, and write the table of all.

    Args:
        source: a manifest or a folder, see :func:`rows_of`.
        settings: engine, sentences and output.
        actors: the processes.
        address: of a Ray cluster; None starts Ray here.
        retry: whether to try again what has failed, crashes and inputs that cannot be used included.
        progress: called after every series.

    Raises:
        InputError: the archive, a sentence or the output cannot be used.
        EngineError, MachineError: the engine, Ray or this machine failed; what has ended is kept.
    """
    begin, output = time.perf_counter(), settings.request.output
    if output is None:
        raise InputError("archive writes results; add -o DIR")
    check_outputs(settings.request)
    rows = rows_of(source)
    check_place(output, [Path(row.path) for row in rows] + [source] * source.is_dir())
    settings = _checked(settings)
    state = State(output)
    with _locked(output):
        state.create()
        started = _begin(output, _identity(settings, rows))
        ended = state.ended()
        for number in [n for n, record in ended.items() if record["kind"] in AGAIN or (record["kind"] and retry)]:
            state.reopen(number)
            del ended[number]
        left = [number for number in range(1, len(rows) + 1) if number not in ended]
        if left:
            with cluster(address, actors) as counted:
                _process(rows, left, settings, counted, state, progress)
        # What is on the disk counts, not what came back.
        records = state.ended()
        missing = len(rows) - len(records.keys() & set(range(1, len(rows) + 1)))
        if missing:
            raise MachineError(f"{missing} of {len(rows)} series have no result; run the command again")
        counts = write_measurements(output, rows, records, len(settings.texts))
        seconds = time.perf_counter() - begin
        _finish(output, settings, started, counts, seconds)
    return Archived(counts=counts, resumed=len(ended), seconds=seconds)


def _checked(settings: Settings) -> Settings:
    """Return settings with the engine's digest, once the sentences are those that it answers."""
    options = settings.options
    directory = open_directory(settings.engine, options["digest"], trust_host_code=options["trust_host_code"])
    reader = open_reader(directory)
    texts = clean_sentences(settings.texts)
    for text in texts:
        reader.asked(text, refuses=options["on_unknown"] == "refuse")
    # Every machine has the same engine.
    return replace(settings, texts=texts, options=options | {"digest": directory.digest})


def _process(
    rows: Sequence[Row], left: Sequence[int], settings: Settings, actors: Actors, state: State, progress: Progress
) -> None:
    # Names on Linux are bytes, which need not be UTF-8, as texts in Arrow are.
    items = [{"number": n, "path": os.fsencode(rows[n - 1].path), "series": rows[n - 1].series} for n in left]
    kinds: Counter[str] = Counter()
    done = len(rows) - len(left)
    progress(done, 0, len(rows))
    try:
        with closing(processed(items, settings, actors)) as replies:
            for reply in replies:
                if reply["fatal"]:
                    raise KINDS.get(reply["fatal"], MachineError)(reply["error"])
                kinds[reply["kind"]] += 1
                progress(done + kinds.total(), kinds.total() - kinds[""], len(rows))
                if kinds[CRASHED] == kinds.total() >= MAX_CRASHES * (actors.count or 1):
                    # They stay recorded: series that always kill must not keep those after them from their turn.
                    raise MachineError(
                        "every process dies; run lsms-rt doctor, and predict with one of the series; then add --retry"
                    )
    except BaseException:
        # Ray has ended the actors, for no fault of their series.
        for number in left:
            if not state.has_ended(number):
                state.withdraw(number)
        raise


def _identity(settings: Settings, rows: Sequence[Row]) -> list[Any]:
    """Return all that the results depend on."""
    request = settings.request
    return [
        __version__,
        settings.options["digest"],
        settings.texts,
        asdict(request.stated),
        request.files,
        names_shown(),
        [(r.path, r.series) for r in rows],
    ]


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keep the output folder to this run."""
    try:
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in output.iterdir() if not PART.fullmatch(path.name)}
        if MANIFEST not in names and names - {LOCK, "state", "series"}:
            raise InputError("the output folder is not empty and holds no archive; choose an empty or new one with -o")
        descriptor = os.open(output / LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise unwritable(error) from error
    try:
        unlock = lock(descriptor, output)
        try:
            # Of a run that was killed while writing.
            for path in output.iterdir():
                if PART.fullmatch(path.name):
                    path.unlink()
            yield
        finally:
            unlock()
    finally:
        os.close(descriptor)


def _begin(output: Path, identity: list[Any]) -> str:
    """Write what the archive is, or check that it is the same; return when its first run began."""
    path = output / MANIFEST
    if not path.exists():
        salt, started = secrets.token_hex(16), datetime.now().astimezone().isoformat(timespec="seconds")
        head = {"salt": salt, "request": request_digest(salt, identity), "started": started}
        write_text(path, json.dumps(head, indent=2) + "\n", durable=True, private=True)
        return started
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        same = head["request"] == request_digest(head["salt"], identity)
        started = str(head["started"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise InputError(f"{MANIFEST} of the output folder cannot be read ({kind}); choose another with -o") from error
    if not same:
        raise InputError(
            "the output folder holds results of other series, sentences, another engine, version or other options; "
            "choose another one with -o"
        )
    return started


def _finish(output: Path, settings: Settings, started: str, counts: Counts, seconds: float) -> None:
    head = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    done = {
        "lsms_rt": __version__, "engine": settings.options["digest"], "sentences": len(settings.texts),
        "counts": asdict(counts), "seconds": round(seconds, 3), "measurements": FILE,
    }  # fmt: skip
    write_text(output / MANIFEST, json.dumps(head | done, indent=2) + "\n", durable=True, private=True)
