"""The Parquet table of an archive: a row per series, sentence and finding; of every series at least one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown
from lsms_rt.runs import table
from lsms_rt.runs.folder import RESULTS

from .rows import Row
from .state import SERIES, State, name

FILE = f"{table.NAME}.parquet"
# Of this table only.
COLUMNS = table.COLUMNS | {
    "kind": (str, "what kept the series from a result: input, machine, engine, unexpected, crash"),
    "path": (str, "path of the input, with --names only"),
}
# Rows that are written at once.
GROUP = 50_000


@dataclass
class Counts:
    """How many series there are, by how they ended, and in how many something was found."""

    complete: int = 0
    incomplete: int = 0
    failed: int = 0
    found: int = 0


def write_measurements(
    output: Path, rows: Sequence[Row], ended: Mapping[int, Mapping[str, Any]], sentences: int
) -> Counts:
    """Write the table of all series.

    Args:
        output: the output folder of the archive.
        rows: all series.
        ended: how each ended, by its number.
        sentences: number of sentences.

    Raises:
        InputError, MachineError: a result cannot be read, or the table cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    fields = [pyarrow.field(key, kinds[kind], metadata={"what": what}) for key, (kind, what) in COLUMNS.items()]
    schema, counts, waiting = pyarrow.schema(fields), Counts(), list[dict[str, Any]]()
    with (
        atomic_file(output / FILE, durable=True, private=True) as part,
        pyarrow.parquet.ParquetWriter(part, schema) as writer,
    ):
        for number, row in enumerate(rows, 1):
            of_series = list(_rows(output, number, ended[number], sentences))
            _count(counts, of_series)
            # What is not UTF-8 in a path cannot be in the table.
            path = {"path": os.fsencode(row.path).decode("utf-8", "replace")} if names_shown() else {}
            waiting += [one | path for one in of_series]
            if len(waiting) >= GROUP or number == len(rows):
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
                waiting = []
    return counts


def _rows(output: Path, number: int, record: Mapping[str, Any], sentences: int) -> Iterator[dict[str, Any]]:
    if record["kind"]:
        for row in table.failed_rows(number, sentences, record["error"]):
            yield row | {"kind": record["kind"]}
        return
    try:
        document = json.loads((State(output).place(number) / RESULTS).read_text(encoding="utf-8"))
        for row in table.rows_of(document):
            place = {"mask": f"{SERIES}/{name(number)}/{row['mask']}"} if row.get("mask") else {}
            yield row | place | {"input": number}
    except (OSError, ValueError, LookupError, TypeError) as error:
        # The next run does it again, as far as its files are gone.
        State(output).reopen(number)
        kind = type(error).__name__
        raise InputError(f"series {number}: its {RESULTS} cannot be read ({kind}); run the command again") from error


def _count(counts: Counts, rows: Sequence[Mapping[str, Any]]) -> None:
    statuses = {row["status"] for row in rows}
    worst = next(status for status in ("failed", "incomplete", "complete") if status in statuses)
    setattr(counts, worst, getattr(counts, worst) + 1)
    counts.found += any(row.get("finding") for row in rows)
