"""The table of limits in docs/dicom.md: for each row an input at the limit, which is read, and one over it.

Where the limit itself would take too long, a small one stands in; each constant is compared with the table's number.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import as_bytes, dataset, enhanced, save, series
from fuzzing.seeds import gzip_of, nifti_bytes, seed
from pydicom import DataElement, Dataset, config
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from lsms_rt import ct_slice
from lsms_rt.errors import InputError
from lsms_rt.reading import budget, limits, nifti
from lsms_rt.reading.dicom import (
    archive,
    decoder_process,
    dicomdir,
    header,
    kept_header,
    parse,
    read,
    select_series,
    source,
)  # fmt: skip
from lsms_rt.reading.dicom import series as series_module
from lsms_rt.reading.load import load_slices

DOCS = Path(__file__).parents[2] / "docs" / "dicom.md"
CORPUS = Path(__file__).parent / "corpus"
UNITS = {"MiB": 2**20, "GiB": 2**30}


class Checker:
    """What a row needs: a folder, limits that stand in, and both verdicts."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.read = self.refused = 0

    def limit(self, value: int, *places: tuple[Any, str]) -> None:
        for module, name in places:
            self.replace(module, name, value)

    def replace(self, module: Any, name: str, value: Any) -> None:
        self._patch.setattr(module, name, value)

    def reads(self, path: Path) -> None:
        assert load_slices(path)
        self.read += 1

    def refuses(self, path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words):
            load_slices(path)
        self.refused += 1

    def file(self, ds: Dataset) -> Path:
        return save(ds, self.folder / "a.dcm")

    def zip(self, members: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(self.folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return self.folder / "a.zip"

    def series(self, count: int) -> Path:
        """A folder of slices of 20x24 = 480 pixels."""
        series(self.folder / "s", range(count))
        return self.folder / "s"

    def limits_size(self, path: Path, size: int, words: str, *places: tuple[Any, str]) -> None:
        """With a limit of its size an input is read, with one less it is refused."""
        self.limit(size, *places)
        self.reads(path)
        self.limit(size - 1, *places)
        self.refuses(path, words)


# first cell of a row -> the constants of its numbers, and what checks it
ROWS: dict[str, tuple[list[tuple[Any, str]], Callable[[Checker], None]]] = {}


def row(cell: str, *constants: tuple[Any, str]) -> Callable[[Callable[[Checker], None]], None]:
    def keep(check: Callable[[Checker], None]) -> None:
        ROWS[cell] = list(constants), check

    return keep


def zeros(syntax: str, rows: int = 512, **tags: Any) -> Dataset:
    """A constant slice, compressed."""
    ds = dataset(np.zeros((rows, 512), np.uint16), **tags)
    if syntax == RLELossless:
        ds.compress(RLELossless)
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


@row("one file, one member of an archive, the content of a deflated file", (limits, "MAX_FILE_BYTES"))
def _(check: Checker) -> None:
    place = (limits, "MAX_FILE_BYTES")
    path = check.file(dataset())
    check.limits_size(path, path.stat().st_size, "over the limit of", place)
    check.limits_size(check.zip({"a": path.read_bytes()}), path.stat().st_size, "over the limit of", place)
    np.save(check.folder / "a.npy", np.full((20, 20), -1000))
    check.limits_size(check.folder / "a.npy", (check.folder / "a.npy").stat().st_size, "over the limit of", place)
    check.limit(2**20, place)
    check.reads(check.file(zeros(DeflatedExplicitVRLittleEndian)))
    check.limit(2**19, place)
    check.refuses(check.folder / "a.dcm", "inflates to more than the limit")


@row("side of a slice, in pixels", (ct_slice, "MAX_SIDE"))
def _(check: Checker) -> None:
    check.reads(check.file(dataset(np.ones((4096, 16), np.uint16))))
    check.refuses(check.file(dataset(np.ones((4097, 16), np.uint16))), "4097x16")


@row("pixels of a file", (read, "MAX_PIXELS"))
def _(check: Checker) -> None:
    check.limits_size(check.file(enhanced(3)), 3 * 480, "is outside the limits", (read, "MAX_PIXELS"))


@row("pixels of a series or volume", (limits, "MAX_VOXELS"))
def _(check: Checker) -> None:
    check.limits_size(check.series(3), 3 * 480, "1440 pixels", (series_module, "MAX_VOXELS"))
    (check.folder / "a.nii").write_bytes(nifti_bytes())
    check.limits_size(check.folder / "a.nii", 2 * 32 * 32, "is not a CT volume", (nifti, "MAX_VOXELS"))


@row(
    "pixels of an input for each byte of its files, or in all if that is more",
    (limits, "PIXELS_PER_BYTE"),
    (limits, "FREE_PIXELS"),
)
def _(check: Checker) -> None:
    free, share = (limits, "FREE_PIXELS"), (limits, "PIXELS_PER_BYTE")
    check.limit(0, share)
    words = "which CT images never are"
    packed = check.file(zeros(DeflatedExplicitVRLittleEndian))
    check.limits_size(packed, 512 * 512, words, free)
    check.limits_size(check.series(3), 3 * 480, words, free)
    check.limits_size(check.zip({"a": as_bytes(dataset())}), 37 * 101, words, free)
    (check.folder / "a.nii.gz").write_bytes(gzip_of(nifti_bytes()))
    check.limits_size(check.folder / "a.nii.gz", 2 * 32 * 32, "more than a CT image compresses", free)
    check.limit(0, free)
    check.limits_size(packed, -(-512 * 512 // packed.stat().st_size), words, share)


@row(
    "expansion of a deflated file, a member of an archive, compressed pixels: times the size, or in all if it is more",
    (limits, "MAX_INFLATION"),
    (limits, "FREE_INFLATION"),
)
def _(check: Checker) -> None:
    free, share = (limits, "FREE_INFLATION"), (limits, "MAX_INFLATION")
    check.limit(0, share)
    size = 2 * 512 * 512
    check.limits_size(check.file(zeros(RLELossless)), size, "more than a CT image compresses", free)
    ratio = -(-size // len(zeros(RLELossless).PixelData))
    check.limit(0, free)
    check.limits_size(check.folder / "a.dcm", ratio, "more than a CT image compresses", share)
    check.limit(0, share)
    # What is inflated is the header, too.
    plain = as_bytes(dataset(np.zeros((512, 512), np.uint16)))
    whole = len(plain)
    check.file(zeros(DeflatedExplicitVRLittleEndian))
    check.limit(whole, free)
    check.reads(check.folder / "a.dcm")
    check.limit(size, free)
    check.refuses(check.folder / "a.dcm", "inflates to more than the limit")
    # The same bytes: a random UID has not always the same length.
    check.limits_size(check.zip({"a": plain}), whole, "inflates to more than", free)


@row("items of sequences in a header", (parse, "MAX_ITEMS"))
def _(check: Checker) -> None:
    path = check.file(dataset(ReferencedImageSequence=[Dataset() for _ in range(20)]))
    check.limits_size(path, 20, "over 19 items", (parse, "MAX_ITEMS"))


@row("one value of a header that is kept, such as a name or a UID", (kept_header, "MAX_VALUE"))
def _(check: Checker) -> None:
    for size, verdict in ((1024, check.reads), (1026, lambda path: check.refuses(path, "longer than 1024 bytes"))):
        ds = dataset()
        ds.add(DataElement("StudyDescription", "LO", "x" * size, validation_mode=config.IGNORE))
        verdict(check.file(ds))


@row("values of all headers of an input that are kept", (budget, "MAX_HEADER_BYTES"))
def _(check: Checker) -> None:
    path, sizes, add = check.series(3), [], budget.Budget.add_header
    check.replace(budget.Budget, "add_header", lambda spent, size: (sizes.append(size), add(spent, size)))
    check.reads(path)
    assert len(sizes) == 3 and min(sizes) > 50
    check.limits_size(path, sum(sizes), "its headers hold more than", (budget, "MAX_HEADER_BYTES"))


@row("slices of a series, frames of a file", (limits, "MAX_SLICES"))
def _(check: Checker) -> None:
    places = [(module, "MAX_SLICES") for module in (series_module, read, header, nifti)]
    check.limits_size(check.series(3), 3, "3 slices", *places)
    check.limits_size(check.file(enhanced(3)), 3, "is outside the limits", *places)
    (check.folder / "a.nii").write_bytes(nifti_bytes())
    check.limits_size(check.folder / "a.nii", 2, "2 slices, over the limit", *places)


@row("files of a folder, members of an archive, records of a DICOMDIR", (limits, "MAX_FILES"))
def _(check: Checker) -> None:
    path = check.series(3)
    check.limits_size(path, 3, "3 files, over the limit", (limits, "MAX_FILES"))
    members = {file.name: file.read_bytes() for file in path.iterdir()}
    check.limits_size(check.zip(members), 3, "3 members, over the limit", (limits, "MAX_FILES"))
    check.limits_size(seed("dicomdir").write(check.folder), 3, "3 records, over the limit", (limits, "MAX_FILES"))


@row("all files and folders below a folder, hidden ones included", (source, "MAX_ENTRIES"))
def _(check: Checker) -> None:
    path = check.series(3)
    (path / ".hidden").mkdir()
    check.limits_size(path, 4, "over 3 files and folders, hidden ones included", (source, "MAX_ENTRIES"))


@row("frames of all CT files of a folder, archive or DICOMDIR", (series_module, "MAX_FRAMES"))
def _(check: Checker) -> None:
    check.limits_size(check.series(3), 3, "over 2 frames in all", (series_module, "MAX_FRAMES"))


@row("stacks that a message lists", (select_series, "LISTED"))
def _(check: Checker) -> None:
    for number in range(3):
        save(dataset(SeriesInstanceUID=f"1.2.{number}", SeriesNumber=number), check.folder / f"{number}.dcm")
    for listed in (3, 2):
        check.limit(listed, (select_series, "LISTED"))
        with pytest.raises(InputError, match="3 series or stacks") as caught:
            load_slices(check.folder)
        # A list over the limit is cut, and says so.
        assert ("more" in str(caught.value)) == (listed < 3)
    check.read += 1
    check.refused += 1


@row("a DICOMDIR", (dicomdir, "MAX_DICOMDIR_BYTES"))
def _(check: Checker) -> None:
    path = seed("dicomdir").write(check.folder)
    check.limits_size(path, path.stat().st_size, "over the limit of", (dicomdir, "MAX_DICOMDIR_BYTES"))


@row("directory of an archive", (archive, "MAX_DIRECTORY_BYTES"))
def _(check: Checker) -> None:
    # hidden members, which are not read
    members = {"a": as_bytes(dataset())} | {f".{n}": b"" for n in range(400)}
    size = sum(46 + len(name) for name in members)
    place = (archive, "MAX_DIRECTORY_BYTES")
    check.limits_size(check.zip(members), size, "its directory is over the limit", place)


@row("a member of an archive, up to its pixels", (archive, "MAX_HEADER_BYTES"))
def _(check: Checker) -> None:
    # It is inflated in pieces of 16 KiB.
    ds = dataset(np.random.default_rng(0).integers(0, 2000, (128, 128)).astype(np.uint16))
    ds.add_new(0x00091001, "OB", bytes(2**14))
    path = check.zip({"a": as_bytes(ds)})
    check.limits_size(path, 2 * 2**14, "inflates to more than the limit", (archive, "MAX_HEADER_BYTES"))


@row("an archive, all that is inflated from it", (budget, "MAX_INFLATED_BYTES"))
def _(check: Checker) -> None:
    path = check.zip({"a": as_bytes(dataset())})
    with archive.sources_of_archive(path, "x") as sources:
        spent = sources[0].budget
        header.header_of(sources[0])
        sources[0].head()
        parse.open_dataset(sources[0])
    check.limits_size(path, spent.inflated, "inflates to more than the limit", (budget, "MAX_INFLATED_BYTES"))


@row(
    "seconds to decode the compressed pixels of one file; one more for each so many pixels",
    (decoder_process, "CPU_SECONDS"),
    (decoder_process, "PIXELS_PER_SECOND"),
)
def _(check: Checker) -> None:
    pytest.importorskip("jpeg_ls")
    check.reads(seed("dicom_jpegls").write(check.folder))
    check.limit(1, (decoder_process, "CPU_SECONDS"))
    check.refuses(CORPUS / "jpegls_endless.dcm", "take more than 1 s to decode")
    check.limit(0, (decoder_process, "CPU_SECONDS"))
    check.limit(32 * 32, (decoder_process, "PIXELS_PER_SECOND"))
    check.refuses(CORPUS / "jpegls_endless.dcm", "take more than 1 s to decode")


@row(
    "seconds to parse and decode an input; one more for each so many pixels",
    (budget, "MAX_SECONDS"),
    (budget, "PIXELS_PER_SECOND"),
)
def _(check: Checker) -> None:
    path, clock = check.series(3), iter(range(10**6))
    # By this clock each of three files is parsed for a second and its header taken for another, twice, and its pixels
    # are decoded for one more.
    check.replace(budget.time, "thread_time", lambda: next(clock))
    check.limit(15, (budget, "MAX_SECONDS"))
    check.reads(path)
    check.limit(13, (budget, "MAX_SECONDS"))
    check.refuses(path, "reading took more than the limit of 13 s")
    check.limit(480, (budget, "PIXELS_PER_SECOND"))
    check.reads(path)


def table() -> dict[str, str]:
    text = DOCS.read_text().split("## Limits")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return dict(rows[2:])


def numbers(text: str) -> list[int]:
    """The numbers of a cell, in bytes where it names a unit."""
    found = re.findall(r"(2\*\*\d+|[\d,]*\d)(?: (MiB|GiB))?", text)
    return [
        (2 ** int(n[3:]) if n.startswith("2**") else int(n.replace(",", ""))) * UNITS.get(unit, 1) for n, unit in found
    ]


def test_every_row_has_its_check() -> None:
    assert list(table()) == list(ROWS)


# They wait for limits of a second, the least that the system can measure.
SLOW = [cell for cell in ROWS if cell.startswith("seconds to decode")]


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, marks=[pytest.mark.slow] if cell in SLOW else []) for cell in ROWS]
)
def test_limits(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants, run = ROWS[cell]
    assert [getattr(module, name) for module, name in constants] == numbers(table()[cell])
    check = Checker(tmp_path, monkeypatch)
    run(check)
    assert check.read and check.refused
