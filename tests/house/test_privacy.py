"""Nothing that may identify a patient comes out unless asked for: markers everywhere, and a look at all output."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from markers import BREAK, DIGITS, MARKER, TEXT, UID, change, hidden, mark
from PIL import Image

from lsms_rt.cli.main import main
from lsms_rt.cli.parser import LEVELS
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.errors import LsmsError
from lsms_rt.runs import run as run_module

pytestmark = pytest.mark.usefixtures("engines_are_fake")


@pytest.fixture
def folder(tmp_path: Path, phantom_case: Any) -> Path:
    """Three slices with markers in every tag, in files and folders named after the patient."""
    place = tmp_path / MARKER / f"study {MARKER}"
    place.mkdir(parents=True)
    for index in range(3):
        file = place / f"{MARKER} {index}.dcm"
        write_slice(file, phantom_case, index, "case")
        change(file, lambda ds, index=index: mark(ds, index))
    return place


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> int:
    """The exit code, once nothing was said that must not be."""
    try:
        code = main(["predict", "demo", *map(str, arguments)])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    out, err = capfd.readouterr()
    assert hidden(out), out
    assert hidden(err), err
    return code


def outputs(place: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(place.rglob("*")):
        yield path.name, path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_no_output_of_a_series_tells_whose_it_is(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], level: str, json: tuple[str, ...]
) -> None:
    out = tmp_path / f"out of {MARKER}"
    more = ("--log-level", level, "--debug", "-o", out, *json)
    assert run(capfd, folder, "--text", TEXT, *more) == 0
    assert run(capfd, folder, "--text", TEXT, *more) == 0  # resumed
    found = dict(outputs(out))
    assert len(found) >= 3 * 2 + 2
    for name, data in found.items():
        assert hidden(name) and hidden(data), name
    assert run(capfd, folder, "--text", "the cyst", *more) == 2  # of another request


def test_asked_for_names_are_shown(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So that the markers above are where they would be found."""
    assert main(["predict", "demo", str(folder), "--text", TEXT, "--names", "-o", str(tmp_path / "out")]) == 0
    out, err = capfd.readouterr()
    assert not hidden(out)
    assert not hidden(err)  # a word of the sentence that the engine does not know
    assert not hidden((tmp_path / "out" / "results.json").read_bytes())


@pytest.mark.parametrize("what", list(BREAK))
@pytest.mark.parametrize("debug", [(), ("--debug", "--log-level", "debug")])
def test_no_error_of_a_file_tells_whose_it_is(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str, debug: tuple[str, ...]
) -> None:
    file = sorted(folder.iterdir())[1]
    change(file, BREAK[what])
    code = run(capfd, file, "--text", TEXT, *debug)
    assert code in (2, 3), code
    run(capfd, folder, "--text", TEXT, *debug, "-o", tmp_path / "out")
    for name, data in outputs(tmp_path / "out"):
        assert hidden(name) and hidden(data), name


def test_no_error_of_other_inputs_tells_whose_it_is(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = folder.parent
    wrong = {
        f"{MARKER}.txt": b"dear " + MARKER.encode(),
        f"{MARKER}.npy": b"\x93NUMPY" + MARKER.encode(),
        f"{MARKER}.png": b"\x89PNG" + MARKER.encode(),
        f"{MARKER}.nii": MARKER.encode() * 100,
        f"{MARKER}.nii.gz": MARKER.encode(),
        f"{MARKER}.zip": b"PK" + MARKER.encode(),
        f"{MARKER}.dcm": b"\0" * 128 + b"DICM" + MARKER.encode(),
        f"{MARKER}-empty.dcm": b"",
    }
    for name, data in wrong.items():
        (place / name).write_bytes(data)
        for more in ((), ("--debug", "--log-level", "debug")):
            assert run(capfd, place / name, "--text", TEXT, *more) in (2, 3), name
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(place / f"{MARKER}-gray.png")
    assert run(capfd, place / f"{MARKER}-gray.png", "--text", TEXT) == 2
    assert run(capfd, place / f"{MARKER}-none.dcm", "--text", TEXT) == 2
    (place / "empty").mkdir()
    assert run(capfd, place / "empty", "--text", TEXT) == 2
    with zipfile.ZipFile(place / f"{MARKER}-some.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{MARKER}/{file.name}")
        archive.writestr(f"{MARKER}/{MARKER}.dcm", b"\0" * 128 + b"DICM" + MARKER.encode())
    assert run(capfd, place / f"{MARKER}-some.zip", "--text", TEXT, "--debug") == 5  # one member is damaged


def renumber(ds: pydicom.Dataset) -> None:
    ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{UID}.9", f"{ds.SOPInstanceUID}.9"
    ds.SeriesNumber = int(ds.SeriesNumber or 0) + 1


def test_several_series_are_listed_without_their_uids(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(folder.iterdir()):
        other = file.with_name(f"other {file.name}")
        shutil.copyfile(file, other)
        change(other, renumber)
    assert run(capfd, folder, "--text", TEXT) == 2
    assert run(capfd, folder, "--text", TEXT, "--series", MARKER) == 2
    assert run(capfd, folder, "--text", TEXT, "--series", UID) in (0, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("x", "--text", *TEXT.split()),  # a sentence without quotes
        ("x", "--text", MARKER, "--batch", MARKER),
        ("x", "--text", MARKER, "--window", MARKER, "1"),
        ("x", "--text", MARKER, "--log-level", MARKER),
        ("x", "--text", MARKER, f"--{MARKER}"),
        (f"--{MARKER}",),
        ("x", "--text"),
        ("x", "--text", MARKER, f"--seg={MARKER}"),
        ("x", "--text", MARKER, f"-h{MARKER}"),
        ("x", "--text", MARKER, "--batch", DIGITS[:6]),
    ],
)
def test_no_usage_error_repeats_what_was_given(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert run(capfd, *arguments) == 2


@pytest.mark.parametrize("text", ["", MARKER, f"{MARKER} " * 300, f"lesion {MARKER} " * 40])
def test_no_error_of_a_sentence_repeats_it(folder: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    assert run(capfd, folder, "--text", text, "--debug") == 2


@pytest.mark.parametrize("error", [RuntimeError(MARKER), LsmsError("harmless"), OSError(5, "I/O", f"/{MARKER}/x")])
def test_no_unexpected_error_repeats_a_value(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        try:
            raise ValueError(MARKER)
        except ValueError as cause:
            raise error from cause

    monkeypatch.setattr(run_module, "load_slices", fail)
    for more in ((), ("--debug",)):
        assert run(capfd, folder, "--text", TEXT, *more) in (1, 3)


def test_digests_are_slow_outside_of_these_tests(sizes_of_the_product: dict[str, int]) -> None:
    """Nobody finds out a name by trying many: a digest takes a twentieth of a second or more."""
    rounds = [number for name, number in sizes_of_the_product.items() if name.endswith("ROUNDS")]
    assert len(rounds) == 2 and min(rounds) >= 200_000
