"""In Python, too, nothing that may identify a patient comes out unless asked for; nor do commands on data sets."""

from __future__ import annotations

import csv
import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_results import answer_with
from markers import BREAK, DIGITS, MARKER, TEXT, UID, change, hidden, mark
from PIL import Image
from pydicom import DataElement, config
from small_dataset import read_table, write_dataset, write_table

import lsms_rt
from lsms_rt import writing
from lsms_rt.calibration import calibrate
from lsms_rt.cli.main import main
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.datasets.questions import answer_of, questions
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.errors import InputError, LsmsError, raised_from
from lsms_rt.privacy import label, show_names
from lsms_rt.reading.dicom.header import header_of
from lsms_rt.reading.dicom.source import FileSource
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.runs.jobs import jobs_of
from lsms_rt.runs.request import Request

pytestmark = pytest.mark.usefixtures("engines_are_fake")


@pytest.fixture
def file(tmp_path: Path, phantom_case: Any) -> Path:
    """A slice with markers in its tags, in a file and a folder named after the patient."""
    place = tmp_path / MARKER
    place.mkdir()
    path = place / f"{MARKER}.dcm"
    write_slice(path, phantom_case, 0, "case")
    change(path, lambda ds: mark(ds, 0))
    return path


@pytest.fixture
def names() -> Iterator[None]:
    show_names()
    yield
    show_names(False)


def logged(error: Exception) -> str:
    """What a server's ``logger.exception`` writes about an error, and about one that was raised from it."""
    stream = io.StringIO()
    logger = logging.getLogger("server")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        for raised in (error, RuntimeError("our own")):
            try:
                raise raised from (None if raised is error else error)
            except Exception:
                logger.exception("failed")
            try:
                try:
                    raise error
                except LsmsError:
                    raise raised if raised is error else RuntimeError("while handling")  # noqa: B904
            except Exception:
                logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


@pytest.mark.parametrize("what", list(BREAK))
def test_a_logged_error_tells_nothing(file: Path, what: str) -> None:
    change(file, BREAK[what])
    with lsms_rt.Segmenter(lsms_rt.demo_engine()) as segmenter:
        for call in (lambda: segmenter.predict(file, TEXT), lambda: load_slice(file), lambda: load_slices(file.parent)):
            with pytest.raises(LsmsError) as caught:
                call()
            assert hidden(logged(caught.value))
            assert hidden(repr(caught.value)) and hidden(str(caught.value))


def fail(text: str) -> InputError:
    """An error that was raised from another one, which holds ``text``."""
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise InputError("no such thing; give another") from error
    except InputError as error:
        return error


def test_a_chain_is_shown_on_request(names: None) -> None:
    error = fail(MARKER)
    assert not hidden(logged(error))
    show_names(False)
    assert hidden(logged(error))
    # For --debug, which prints types and places.
    assert error.__cause__ is None and error.__context__ is None
    assert isinstance(raised_from(error), ValueError)


def test_an_uncaught_error_tells_nothing(file: Path) -> None:
    """The interpreter's own printing, before Python 3.13, does not ask an error for its cause."""
    change(file, BREAK["frames"])
    script = "import sys, lsms_rt; lsms_rt.Segmenter(lsms_rt.demo_engine()).predict(sys.argv[1], 'the cyst')"
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "InputError" in done.stderr
    assert hidden(done.stderr), done.stderr


def test_an_output_that_cannot_be_written_tells_nothing(file: Path) -> None:
    """Also where it is written: the path is the error's context."""
    script = (
        "import sys, lsms_rt; s = lsms_rt.Segmenter(lsms_rt.demo_engine())\n"
        "s.predict(sys.argv[1], 'the cyst').save_mask(sys.argv[1] + '/none/mask.png')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "InputError" in done.stderr
    assert hidden(done.stderr), done.stderr


WRITERS: dict[str, Callable[[Any, Path], object]] = {
    "write_seg": lambda results, path: writing.write_seg(results, path, engine_digest=""),
    "write_sr": lambda results, path: writing.write_sr(results, path, seg=path.with_name(MARKER), engine_digest=""),
    "write_sc": lambda results, path: writing.write_sc(results, lambda _: path, engine_digest=""),
    "write_rtstruct": lambda results, path: writing.write_rtstruct(results, path, engine_digest=""),
    "write_nifti": lambda results, path: writing.write_nifti(results, path.with_suffix(".nii")),
}
HEADERS = {
    "position": ("ImagePositionPatient", [MARKER] * 3),
    "spacing": ("PixelSpacing", MARKER),
    "identity": ("StudyInstanceUID", MARKER),
    "frame of reference": ("PositionReferenceIndicator", MARKER),
}


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("damage", list(HEADERS))
def test_a_writer_tells_nothing(
    file: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Neither its errors nor what libraries warn of or log, whether it can write or not."""
    pytest.importorskip("highdicom")
    pytest.importorskip("nibabel")
    caplog.set_level(logging.DEBUG)
    ct = load_slice(file)
    keyword, value = HEADERS[damage]
    ct.header[keyword] = DataElement(keyword, "LO", value, validation_mode=config.IGNORE)
    results, told = [answer_with(ct, np.eye(*ct.hu.shape, dtype=bool), TEXT)], []
    # into a folder that is not there, and into one that is
    for place in (file.parent / MARKER / "out.dcm", file.parent / "out.dcm"):
        try:
            WRITERS[name](results, place)
        except LsmsError as error:
            told.append(logged(error) + repr((error.__cause__, error.__context__)))
    warned = [str(warning.message) for warning in recwarn]
    assert told and hidden(" ".join((*told, *warned))) and hidden(caplog.text)


def test_no_repr_tells_whose_it_is(file: Path, tmp_path: Path) -> None:
    ct = load_slice(file)
    header = header_of(FileSource(file, "the file"))
    with lsms_rt.Segmenter(lsms_rt.demo_engine()) as segmenter:
        result = segmenter.predict(file, TEXT)
    (question, *_) = questions(read_annotations(marked_dataset(tmp_path / "d"), "val"))
    answer = answer_of(question, question.truth)
    request, (job,) = Request(output=file.parent, series=UID), jobs_of([file], [TEXT])
    for thing in (ct, header, header.key, result, question, question.row, answer, request, job, LeftOut(), segmenter):  # type: ignore[union-attr]
        text = repr(thing)
        assert hidden(text), text
        assert "array(" not in text and len(text) < 1000


def test_an_overlay_holds_no_sentence_unless_names_are_shown(file: Path, tmp_path: Path) -> None:
    with lsms_rt.Segmenter(lsms_rt.demo_engine()) as segmenter:
        result = segmenter.predict(file, "the cyst in the liver")

    def drawn(name: str, **options: bool) -> np.ndarray:
        result.save_overlay(tmp_path / name, **options)  # type: ignore[arg-type]
        return np.asarray(Image.open(tmp_path / name))

    without, with_text = drawn("a.png", include_text=False), drawn("b.png", include_text=True)
    assert without.shape != with_text.shape or (without != with_text).any()
    np.testing.assert_array_equal(drawn("c.png"), without)
    show_names()
    try:
        np.testing.assert_array_equal(drawn("d.png"), with_text)
    finally:
        show_names(False)


# Commands that read data sets


def marked_dataset(folder: Path) -> Path:
    """A data set whose every name and sentence is a marker."""
    folder = write_dataset(folder / MARKER)
    rows = []
    for number, (case, slice_, image, mask, sentence, _, split) in enumerate(read_table(folder)):
        for path in (image, mask):
            if (folder / path).exists():
                (folder / path).rename((folder / path).with_stem(f"{MARKER} {Path(path).stem}"))
        image, mask = (str(Path(p).with_stem(f"{MARKER} {Path(p).stem}")) for p in (image, mask))
        rows.append([f"{MARKER} {case}", f"{DIGITS}{slice_}", image, mask, f"{sentence} {MARKER} $", MARKER, split])
        assert number < 100
    write_table(folder, rows)
    return folder


def told(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([*map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out + err


def test_evaluate_tells_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, answers = marked_dataset(tmp_path), tmp_path / "answers.csv"
    command = ("evaluate", "demo", data, "--answers", answers)
    code, text = told(capfd, *command)
    assert code == 0 and hidden(text) and hidden(answers.read_bytes())
    with answers.open() as file:
        assert [row["line"] for row in csv.DictReader(file)] == [str(n) for n in range(2, 20)]
    assert told(capfd, *command, "--names")[0] == 0
    assert not hidden(answers.read_bytes())


COMMANDS = (
    ("evaluate", "demo", "DATA"),
    ("calibrate", "demo", "DATA", "-o", "OUT"),
    ("train", "DATA", "-o", "OUT", "--epochs", "1"),
    ("build-engine", "--precision", "fp16", "--dataset", "DATA", "--split", "val", "-o", "OUT.engine"),
)


@pytest.fixture(scope="module")
def opened_candidates() -> Callable[..., Any]:
    """Opens the bundled engine for a calibration once, which takes 0.2 s."""
    return cache(calibrate.open_candidates)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", ["mask", "image", "missing", "long", "case", "table", "split"])
def test_no_error_of_a_data_set_tells_whose_it_is(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    opened_candidates: Callable[..., Any],
    command: tuple[str, ...],
    damage: str,
) -> None:
    monkeypatch.setattr(calibrate, "open_candidates", opened_candidates)
    data = marked_dataset(tmp_path)
    rows = read_table(data)
    for row in rows:
        if damage == "mask":
            (data / row[3]).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0 " + MARKER.encode())
        elif damage == "image":
            (data / row[2]).write_bytes(b"\0" * 128 + b"DICM" + MARKER.encode())
    if damage == "missing":
        rows[0][2] = f"{MARKER}.npy"
    elif damage == "long":
        rows[0][2], rows[1][3] = f"{MARKER}" * 1000, f"{MARKER}\0.png"
    elif damage == "case":
        rows[-1][0] = rows[0][0]
    elif damage == "split":
        rows = [[*row[:-1], f"{MARKER} {row[-1]}"] for row in rows]
    write_table(data, rows)
    if damage == "table":
        (data / "annotations.csv").write_bytes(b"case_id,\xff" + MARKER.encode())
    words = {"DATA": str(data), "OUT": str(tmp_path / "out"), "OUT.engine": str(tmp_path / "out.engine")}
    more = ("--split", "val") if command[0] == "evaluate" else ()
    for debug in ((), ("--debug",)):
        code, text = told(capfd, *(words.get(word, word) for word in command), *more, *debug)
        assert code == 2, text
        assert hidden(text), text


def test_names_hold_no_control_characters(names: None) -> None:
    assert label("/a/\x1b[31mDOE\n.dcm", "the file") == "[31mDOE .dcm"
    assert str(InputError("\x1b]0;title\x07 of a\x9b file")) == "]0;title of a file"
