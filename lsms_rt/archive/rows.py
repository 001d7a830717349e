"""The series of an archive: the rows of a manifest, or what a folder holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.parse import looks_like_dicom
from lsms_rt.reading.dicom.source import HEAD_BYTES, ends_like_dicom, is_visible

_log = logging.getLogger("lsms_rt")
MANIFEST = ".parquet"
# A file with such a name is a series of its own.
FILES = (".zip", ".nii", ".nii.gz")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One series.

    Attributes:
        path: a file or folder, as ``predict`` reads it.
        series: which series of it; None for the only one.
    """

    path: str = field(repr=False)
    series: str | None = field(default=None, repr=False)


def rows_of(source: Path) -> list[Row]:
    """Return the series of a manifest in its order, or of a folder, sorted by path.

    A manifest is a Parquet table with a column ``input``, paths that are absolute or relative to its folder, and if
    needed ``series``; its other columns are ignored.  In a folder, a series is a folder that directly holds DICOM
    files, with all below it; a folder without folders; and any other ZIP archive and NIfTI file.

    Raises:
        InputError: it cannot be read, or holds no series.
    """
    if source.is_dir():
        links: list[str] = []
        rows = [Row(path=path) for path in sorted(_inputs(os.fspath(source), links), key=os.fsencode)]
        if links:
            _log.warning("links to folders (%d) are not followed, they may lead anywhere; use a manifest", len(links))
    elif source.name.lower().endswith(MANIFEST):
        rows = _of_manifest(source)
    else:
        raise InputError("the archive is neither a folder nor a .parquet file; give one of them")
    if not rows:
        raise InputError("the archive holds no series; give a folder of series, or a manifest with a row for each")
    return rows


def _of_manifest(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        if "input" not in names or "text" in names:
            what = (
                "has no column input" if "input" not in names else "has a column text, and all series are asked --text"
            )
            raise InputError(f"the manifest {what}; give columns input (a path) and if needed series")
        columns = [name for name in ("input", "series") if name in names]
        table = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise InputError(f"the manifest cannot be read as Parquet ({type(error).__name__}); check the path") from error
    rows = [_row(values, number, path.parent) for number, values in enumerate(table, 1)]
    numbers: dict[Row, int] = {}
    for number, row in enumerate(rows, 1):
        # Twice in the table, what is found in it would be counted twice.
        if (same := numbers.setdefault(row, number)) != number:
            raise InputError(f"manifest, rows {same} and {number} are the same series; give each once")
    return rows


def _row(values: dict[str, object], number: int, folder: Path) -> Row:
    place, series = values["input"], values.get("series")
    # An empty path would be the manifest's folder, so whatever lies there.
    if not isinstance(place, str) or not place.strip() or "\0" in place:
        raise InputError(f"manifest, row {number}: input is no path; give a text")
    if series is not None and (isinstance(series, bool) or not isinstance(series, (str, int)) or series == ""):
        raise InputError(
            f"manifest, row {number}: series is neither a text nor a whole number; leave it empty, or give one"
        )
    return Row(path=os.path.abspath(folder / place), series=None if series is None else str(series))


def _inputs(folder: str, links: list[str]) -> Iterator[str]:
    """Yield the series in a folder, in any order; collect the links to folders."""
    try:
        with os.scandir(folder) as listed:
            entries = [entry for entry in listed if is_visible((entry.name,))]
    except OSError:
        # Its row says why it cannot be read; all others are done.
        yield os.path.abspath(folder)
        return
    # os.path, since a link to itself is an error for DirEntry.is_dir.
    linked = [entry.path for entry in entries if entry.is_symlink() and os.path.isdir(entry.path)]
    folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    links += linked
    own = [entry.path for entry in entries if entry.path.lower().endswith(FILES) and not os.path.isdir(entry.path)]
    others = [entry.path for entry in entries if entry.path not in {*folders, *own, *linked}]
    # Where nothing is below a folder, whatever is in it may be a damaged series.
    if others and (not (folders or own) or _holds_dicom(others)):
        yield os.path.abspath(folder)
        return
    yield from map(os.path.abspath, own)
    for path in folders:
        yield from _inputs(path, links)


def _holds_dicom(paths: Sequence[str]) -> bool:
    return any(ends_like_dicom(path) for path in paths) or any(map(_is_dicom, paths))


def _is_dicom(path: str) -> bool:
    """Return whether a file begins like a DICOM image; a DICOMDIR is a list of series, which lie below it."""
    if os.path.basename(path).upper() == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(HEAD_BYTES))
    except OSError:
        # It may be a slice; the folder's reader says what is wrong.
        return True
