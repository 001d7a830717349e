"""Records -> one Markdown file and a picture each: ``lsms-rt bench report``; and tables inside other texts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lsms_rt.errors import InputError, MissingDependencyError

from .records import read
from .summary import PART as SUMMARY
from .summary import summary
from .tables import PARTS, markdown

BEGIN, END = "<!-- bench: {} -->", "<!-- bench: end -->"


def write_report(files: list[Path], output: Path) -> list[Path]:
    """``report.md`` and pictures in the folder ``output``; returns what was written.

    Raises :class:`InputError` for a file that is no record, ``MissingDependencyError`` without matplotlib.
    """
    records = {path.stem: read(path) for path in files}
    if len(records) < len(files):
        raise InputError("two of the files have one name; their pictures would replace each other")
    try:
        from .plots import draw
    except ImportError as error:
        raise MissingDependencyError(f"pictures need {error.name}; pip install 'lsms-rt[build]'") from error
    output.mkdir(parents=True, exist_ok=True)
    parts, written = ["# Measurements", ""], []
    for stem, record in records.items():
        pictures = draw(record, output / stem)
        written += pictures
        parts += [f"## {stem}", "", markdown(record), *(f"![{stem}]({picture.name})\n" for picture in pictures)]
    page = output / "report.md"
    page.write_text("\n".join(parts))
    return [page, *written]


def filled(text: str, folder: Path) -> str:
    """``text`` with every table between ``<!-- bench: FILE PART -->`` and ``<!-- bench: end -->`` made anew.

    ``folder`` is what FILE begins from; PART one of ``tables.PARTS``, all of the record where it is left out.
    """
    done, rest = "", text
    while "<!-- bench: " in rest:
        before, _, rest = rest.partition("<!-- bench: ")
        name, closed, rest = rest.partition(" -->\n")
        _, ended, rest = rest.partition(END)
        if not (closed and ended):
            raise InputError(f"a table of {name[:60]!r} has no end; close it with {END}")
        file, _, part = name.partition(" ")
        if part == SUMMARY:
            done += f"{before}{BEGIN.format(name)}\n{summary(folder / file)}{END}"
            continue
        if part not in PARTS:
            raise InputError(f"no part {part[:60]!r} of a record; there are {', '.join(filter(None, PARTS))}")
        done += f"{before}{BEGIN.format(name)}\n{PARTS[part](read(folder / file))}{END}"
    return done + rest


def main(argv: Sequence[str] | None = None) -> None:
    """Make the tables of texts anew, and the pictures of their records that they show from their own folder.

    Records are named from the folder in which this is run.
    """
    parser = argparse.ArgumentParser(prog="python -m lsms_rt.bench.report", description=main.__doc__)
    parser.add_argument("texts", nargs="+", type=Path, metavar="FILE.md", help="texts with <!-- bench: ... --> in them")
    for path in parser.parse_args(argv).texts:
        text = filled(path.read_text(), Path())
        path.write_text(text)
        for file in re.findall(r"<!-- bench: (\S+\.json)", text):
            stem = Path(file).stem
            if f"({stem}.png)" in text:
                from .plots import draw

                draw(read(Path(file)), path.with_name(stem))


if __name__ == "__main__":
    main()
