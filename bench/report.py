"""Records as one Markdown file with pictures (``lsms-rt bench report``), and as tables inside other texts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lsms_rt.atomic import write_text
from lsms_rt.errors import InputError, MissingDependencyError

from .records import read
from .summary import PART as SUMMARY
from .summary import summary
from .tables import PARTS, markdown

BEGIN, END = "<!-- bench: {} -->", "<!-- bench: end -->"


def write_report(files: list[Path], output: Path) -> list[Path]:
    """Write ``report.md`` and the pictures of some records into a folder.

    Args:
        files: Records of any kind.
        output: The folder; it is made if it does not exist.

    Returns:
        The files that were written.

    Raises:
        InputError: A file is not a record, or two files have the same name.
        MissingDependencyError: matplotlib is not installed.
    """
    records = {path.stem: read(path) for path in files}
    if len(records) < len(files):
        raise InputError("two of the files have the same name, so their pictures would be the same file; rename one")
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"pictures need {error.name}; pip install 'lsms-rt[build]'") from error
    from .plots import draw

    output.mkdir(parents=True, exist_ok=True)
    parts, written = ["# Measurements", ""], []
    for stem, record in records.items():
        pictures = draw(record, output / stem)
        written += pictures
        parts += [f"## {stem}", "", markdown(record), *(f"![{stem}]({picture.name})\n" for picture in pictures)]
    page = output / "report.md"
    write_text(page, "\n".join(parts))
    return [page, *written]


def filled(text: str, folder: Path) -> str:
    """Replace every table between ``<!-- bench: FILE PART -->`` and ``<!-- bench: end -->`` in a text.

    Args:
        text: Markdown.
        folder: The folder that FILE is relative to.  PART is one of ``tables.PARTS``; without it, all of the record.

    Raises:
        InputError: A table has no end, an unknown part, or a file that is not a record.
    """
    done, rest = "", text
    while "<!-- bench: " in rest:
        before, _, rest = rest.partition("<!-- bench: ")
        name, closed, rest = rest.partition(" -->\n")
        _, ended, rest = rest.partition(END)
        if not (closed and ended):
            raise InputError(f"the table of {name[:60]!r} has no end; add a line {END} after it")
        file, _, part = name.partition(" ")
        if part == SUMMARY:
            done += f"{before}{BEGIN.format(name)}\n{summary(folder / file)}{END}"
            continue
        if part not in PARTS:
            raise InputError(f"{part[:60]!r} is not a part of a record; choose from {', '.join(filter(None, PARTS))}")
        done += f"{before}{BEGIN.format(name)}\n{PARTS[part](read(folder / file))}{END}"
    return done + rest


def main(argv: Sequence[str] | None = None) -> None:
    """Update the tables in texts, and the pictures of their records that lie beside the texts.

    Records are named relative to the current folder.
    """
    parser = argparse.ArgumentParser(prog="python -m lsms_rt.bench.report", description=main.__doc__)
    parser.add_argument("texts", nargs="+", type=Path, metavar="FILE.md", help="texts with <!-- bench: ... --> in them")
    for path in parser.parse_args(argv).texts:
        text = filled(path.read_text(), Path())
        write_text(path, text)
        for file in re.findall(r"<!-- bench: (\S+\.json)", text):
            stem = Path(file).stem
            if f"({stem}.png)" in text:
                from .plots import draw

                draw(read(Path(file)), path.with_name(stem))


if __name__ == "__main__":
    main()
