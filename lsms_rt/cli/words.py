"""``lsms-rt words``: what may be said to an engine, and how it reads a sentence."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from .arguments import add_engine, add_json
from .parser import Command

if TYPE_CHECKING:
    from lsms_rt.sentences import Reading

BROADER = "broader"
HEADINGS = {
    "lesion": "a lesion",
    "type": "its type",
    BROADER: "by a broader term",
    "nature": "its nature",
    "density": "its density",
    "enhancement": "its enhancement",
    "size": "its size",
    "order": "its rank",
    "relation": "what it is next to",
    "place": "where it is",
    "command": "what to do",
}
WIDTH, INDENT = 110, 21
# Of the words that are left out, every so many is shown.
LEFT_OUT = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument(
        "sentence", nargs="?", help="shows how this sentence is read, as predict reads it (default: list the words)"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.engine import open_directory
    from lsms_rt.sentences import open_reader
    from lsms_rt.sentences.listing import words_of

    directory = open_directory(arguments.engine, arguments.digest)
    reader = open_reader(directory)
    limit = directory.manifest.max_tokens
    if arguments.sentence is None:
        words = words_of(reader)
        print(json.dumps(words | {"max_tokens": limit}, indent=2) if arguments.json else _listing(words, limit))
        return
    reading = reader.read(arguments.sentence)
    print(json.dumps(_record(reading, limit), indent=2) if arguments.json else _lines(reading, limit))


def _record(reading: Reading, limit: int) -> dict[str, Any]:
    nearest = {word.text: word.nearest for word in reading.unknown if word.nearest}
    return reading.to_record() | {"nearest": nearest, "max_tokens": limit}


def _lines(reading: Reading, limit: int) -> str:
    rows = [
        ("understood", reading.understood),
        ("read as", reading.read_as or "nothing"),
        ("side", reading.side or "none named"),
        ("tokens", f"{reading.tokens} of {limit}" + (", too many" if reading.tokens > limit else "")),
        *(("note", note) for note in reading.notes(names=True)),
    ]
    return "\n".join(f"{name:{INDENT}} {value}" for name, value in rows)


def _listing(words: dict[str, Any], limit: int) -> str:
    lines = [f"what may be said to this engine, in {words['language']}, in at most {limit} tokens:"]
    for category, groups in words["groups"].items():
        if category == BROADER:
            continue
        said = ", ".join(" = ".join(group["known"]) for group in groups)
        lines.append(_row(HEADINGS.get(category, category), said))
    lines += ["", "words on the right are read as the one on the left:"]
    for category, groups in words["groups"].items():
        replaced = [(group["known"][0], group["also"]) for group in groups if group["also"]]
        if replaced:
            lines += [HEADINGS.get(category, category), *(_row(f"  {one}", ", ".join(also)) for one, also in replaced)]
    lines += ["", "besides:"]
    if words["segments"]:
        lines.append(_row("read as a lobe", words["segments"]))
    if words["open"]:
        lines.append(_row("and", "any other word: its vocabulary is open, so misspelled words are not found"))
    if words["left_out"]:
        said = f"{', '.join(words['left_out'][::LEFT_OUT])} ... (all {len(words['left_out'])}: --json)"
        lines.append(_row("left out, with a note", said))
    lines += [_row(f"refused: {kind}", ", ".join(said)) for kind, said in words["refused"].items()]
    return "\n".join(lines)


def _row(heading: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=f"{heading:{INDENT}} ", subsequent_indent=" " * (INDENT + 1), break_on_hyphens=False
    )


COMMAND = Command(
    name="words", help="what may be said to an engine, and how it reads a sentence", add_arguments=add_arguments,
    run=run,
)  # fmt: skip
