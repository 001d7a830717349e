"""Join the results of shards, once all are there and belong together; their files stay where they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt.atomic import unwritable, write_text
from lsms_rt.errors import InputError

from .folder import RESULTS
from .journal import NAME as JOURNAL
from .shard import FOLDER, MAX_SHARDS
from .table import BEGIN, INPUT, LEFT_OUT, NAME, as_csv, rows_of

# Which of a shard's lists are put one after the other.
_LISTS = ("sentences", "results", "series", "files", "not_read", "not_computed", "not_written")
# Which keys of their rows name a file of the shard's folder.
_FILES = ("overlay", "mask", "file")
_EQUAL = ("lsms_rt", "engine", "weights", "precision", "gate", "inputs")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One shard's results: its number, number of shards, folder, and document."""

    index: int
    count: int
    folder: Path
    document: dict[str, Any]


def merge(folders: Sequence[Path], output: Path) -> dict[str, Any]:
    """Join shards: write results.json and measurements.csv.

    ``number`` of a slice is counted through all shards, in their order.  Names of files are relative to ``output``.

    Args:
        folders: output folders of shards, or folders that hold such.
        output: folder to write; created with access for its owner only if it does not exist.

    Returns:
        The document of results.json.

    Raises:
        InputError: a shard is missing, unfinished or there twice, or they are not of one run; or the output folder
            holds results of another command, or cannot be written.
        MachineError: the machine failed (disk full, input or output error).
    """
    parts = _complete([_read(folder) for folder in _shards_in(folders)])
    try:
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_output(output)
        # Last of all it is written again, so that it is there only if all else is, and of the same shards.
        (output / RESULTS).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error) from error
    document = _joined(parts, output)
    write_text(output / f"{NAME}.csv", as_csv(rows_of(document)), durable=True, private=True)
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_text(output / RESULTS, text, durable=True, private=True)
    return document


def _shards_in(folders: Sequence[Path]) -> list[Path]:
    """Return the output folders of shards, each once."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            own = [folder] if (folder / JOURNAL).exists() else sorted(folder.iterdir(), key=os.fsencode)
        except OSError as error:
            raise InputError(f"a folder of shards cannot be read ({error.strerror}); check the paths") from error
        found |= {os.path.realpath(path): path for path in own if (path / JOURNAL).is_file()}
    if not found:
        raise InputError("no shard is there; give the folder that predict --shard wrote to with -o")
    return list(found.values())


def _read(folder: Path) -> _Part:
    name = FOLDER.fullmatch(folder.name)
    what = f"shard {name[1]} of {name[2]}" if name else "a shard"
    try:
        document = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        shard = document.get("shard")
        if shard is None:
            raise InputError(f"{what} holds results of a run without --shard; give folders of shards only")
        part = _Part(index=shard["index"], count=shard["count"], folder=folder, document=document)
        _check(part)
        # Joined alone, it shows whether all that is needed is there, and can be written.
        alone = _joined([part], folder)
        json.dumps(alone, allow_nan=False)
        as_csv(rows_of(alone)).encode()
        return part
    except FileNotFoundError as error:
        raise InputError(f"{what} is not finished; run its command again") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        kind = type(error).__name__
        raise InputError(f"{what}: its {RESULTS} cannot be read ({kind}); run its command again") from error


def _check(part: _Part) -> None:
    """Raise ValueError unless a shard's rows are of its own inputs, as many as they should be, and name its own files.

    Of other types it raises what Python does.
    """
    document, inputs = part.document, part.document["inputs"]
    if not 1 <= part.index <= part.count <= min(inputs, MAX_SHARDS):
        raise ValueError("no such shard")
    own = range(part.index, inputs + 1, part.count)
    asked = {(row["input"], row["sentence"]) for row in document["sentences"]}
    numbers = {number for number, _ in asked}
    if len(numbers) != len(own) or not all(number in own for number in numbers):
        raise ValueError("other inputs")
    answers = Counter((row["input"], row["sentence"]) for row in document["results"])
    summed = {(row["input"], row["sentence"]): row["slices"] for row in document["series"]}
    if answers.total() != document["run"]["answers"] or not {*answers, *summed} <= asked:
        raise ValueError("answers are missing, or of other inputs")
    if len(summed) != len(document["series"]) or any(answers[place] != count for place, count in summed.items()):
        raise ValueError("answers are missing")
    rows = [row for name in ("results", "files") for row in document[name]]
    if any(row["input"] not in own or not _is_name(row[key]) for row in rows for key in _FILES if key in row):
        raise ValueError("a file of another folder")
    reasons = [INPUT.match(reason) for name in LEFT_OUT for reason in document[name]]
    why = {int(match[1]) if match else None for match in reasons} if inputs > 1 else {1} if reasons else set()
    if not why <= set(own) or any(number not in why for number, _ in asked - summed.keys()):
        raise ValueError("no reason, or of another input")


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _complete(parts: Sequence[_Part]) -> list[_Part]:
    """Return the shards in their order; InputError unless all of one run are there, each once."""
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        raise InputError(f"there are shards of runs in {_and(counts)} parts; give those of one run")
    seen = Counter(part.index for part in parts)
    twice = [index for index, times in sorted(seen.items()) if times > 1]
    if twice:
        raise InputError(f"{_shards(twice)} of {counts[0]} there twice; give each once")
    missing = sorted(set(range(1, counts[0] + 1)) - set(seen))
    if missing:
        raise InputError(f"{_shards(missing)} of {counts[0]} not there; run what is missing, or give its folder too")
    ordered = sorted(parts, key=lambda part: part.index)
    first = ordered[0].document
    checks = (
        (lambda d: d["engine"], "computed by another engine"),
        (lambda d: d["shard"]["asked"], "asked other inputs, sentences or options, or by another version"),
        (lambda d: [d[key] for key in _EQUAL], "described otherwise"),
    )
    for value, what in checks:
        other = [part.index for part in ordered if value(part.document) != value(first)]
        if other:
            raise InputError(f"{_shards(other)} of {counts[0]} {what} than shard 1; run them again like it")
    return ordered


def _check_output(output: Path) -> None:
    """Raise unless the folder may be written: what another command or somebody wrote is not replaced."""
    results, table = output / RESULTS, output / f"{NAME}.csv"
    foreign = (output / JOURNAL).exists() or (results.exists() and b'"shards"' not in results.read_bytes())
    if foreign or (table.exists() and not table.read_bytes().startswith(BEGIN.encode())):
        raise InputError("the output folder holds results of another command; choose another one with -o")


def _joined(parts: Sequence[_Part], output: Path) -> dict[str, Any]:
    lists: dict[str, list[Any]] = {name: [] for name in _LISTS}
    first = 0
    for part in parts:
        place = os.path.relpath(os.path.realpath(part.folder), os.path.realpath(output))
        for name in _LISTS:
            lists[name] += [_moved(item, place, first) for item in part.document[name]]
        first += part.document["run"]["slices"]
    for name in ("sentences", "results", "series", "files"):
        # Stable: slices and sentences keep their order.
        lists[name].sort(key=lambda row: row["input"])
    documents = [part.document for part in parts]
    head = {key: documents[0][key] for key in _EQUAL}
    shards = [{"index": part.index, "run": part.document["run"]} for part in parts]
    return head | {"run": _run([document["run"] for document in documents]), "shards": shards} | lists


def _moved(item: Any, place: str, first: int) -> Any:
    """Return a row of a shard as one of all: files with their folder, slices counted on from ``first``."""
    if not isinstance(item, dict):
        return item
    files = {key: os.path.join(place, item[key]) for key in _FILES if key in item}
    numbers = {key: first + item[key] for key in ("number", "largest") if item.get(key) is not None}
    return item | files | numbers


def _run(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all runs have in common, the first start, and sums; ``seconds`` are those of all processes."""
    counts = {key: sum(run[key] for run in runs) for key in ("slices", "answers", "found", "resumed")}
    steps = dict.fromkeys(step for run in runs for step in run["seconds"])
    seconds = {step: round(sum(run["seconds"].get(step, 0) for run in runs), 3) for step in steps}
    same = {key: value for key, value in runs[0].items() if all(run.get(key) == value for run in runs)}
    started = min(run["started"] for run in runs)
    return same | counts | {"started": started, "seconds": seconds}


def _shards(indexes: Sequence[int]) -> str:
    return f"{'shard' if len(indexes) == 1 else 'shards'} {_and(indexes)}"


def _and(numbers: Sequence[int]) -> str:
    shown = [str(number) for number in numbers[:20]] + ([f"{len(numbers) - 20} more"] if len(numbers) > 20 else [])
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
