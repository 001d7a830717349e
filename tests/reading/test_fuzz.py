"""Damaged files and engines end in a result or in one of our errors: one line, no value of the file, in time.

The long run is ``python tests/helpers/fuzzing/run.py``.  Here are a few hundred of its cases, and all that once failed.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import harness
from fuzzing.case import MARKER, Case, case_of_path
from fuzzing.engines import with_engine_file
from fuzzing.harness import Verdict, bad_message, judge, make_case
from fuzzing.seeds import FORMATS, NATIVE, SIDE, engine_seed, raw_pixels, seed
from fuzzing.workers import Job, _Worker, judge_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom import decoder_process
from lsms_rt.reading.dicom.compressed import check_streams, stream_shape
from lsms_rt.reading.stated import Stated

CORPUS = Path(__file__).parent / "corpus"
PURE = [form for form in FORMATS if form not in NATIVE]
INDEX = st.integers(1, 2**32)
FEW = settings(
    deadline=None, derandomize=True, database=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)


def decent(verdict: Verdict) -> bool:
    return verdict.outcome in ("ok", "typed")


@pytest.mark.parametrize("form", [*FORMATS, "engine"])
def test_seeds_are_valid_and_cases_repeat(form: str) -> None:
    verdict = judge(make_case(form, 0, 0))
    assert verdict.outcome == "ok", verdict
    assert make_case(form, 5, 7).files == make_case(form, 5, 7).files
    assert any(make_case(form, 5, n).files != make_case(form, 5, 0).files for n in range(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("form", PURE)
def test_damaged_files(form: str) -> None:
    @FEW
    @given(INDEX)
    def check(index: int) -> None:
        verdict = judge(make_case(form, 1, index))
        assert decent(verdict), (form, index, verdict)

    check()


@pytest.mark.slow
def test_damaged_files_of_compiled_decoders_and_damaged_engines() -> None:
    """In a process of their own: what compiled code does with them may end it."""
    jobs = [Job(form, 1, index) for index in range(40) for form in NATIVE]
    jobs += [Job("engine", 1, index) for index in range(150)]
    failed = [(job, verdict) for job, verdict in judge_all(jobs, workers=1) if not decent(verdict)]
    assert not failed, failed[0]


def corpus_case(path: Path) -> Case:
    """A saved file or folder; NAME.manifest.json and NAME.tokenizer.json stand in for those of the tiny engine."""
    name = ".".join(path.name.split(".")[1:])
    if name not in ("manifest.json", "tokenizer.json"):
        return case_of_path(path)
    return with_engine_file(engine_seed(), name, path.read_bytes())


@pytest.mark.parametrize(
    "path",
    [
        # An endless one takes the least time that the system can measure, which is a second.
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if "endless" in path.name else [])
        for path in sorted(CORPUS.iterdir())
    ],
)
def test_what_once_failed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The least that the system can measure; one of the files never ends.
    monkeypatch.setattr(decoder_process, "CPU_SECONDS", 1)
    verdict = judge(corpus_case(path))
    assert decent(verdict), verdict


def judged(monkeypatch: pytest.MonkeyPatch, reader: Any, seconds: float = 5) -> Verdict:
    monkeypatch.setattr(harness, "read_slices", reader)
    return judge(Case("x", "a.dcm", {"a.dcm": b"x"}), seconds)


def test_the_harness_sees_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: BaseException) -> Any:
        def reader(path: Path, messages: list[str]) -> None:
            raise error

        return reader

    assert judged(monkeypatch, raises(InputError("a file: bad; mend it"))).outcome == "typed"
    assert judged(monkeypatch, raises(InputError(f"{MARKER}: bad"))).outcome == "message"
    assert judged(monkeypatch, raises(InputError("long " * 200))).outcome == "message"
    assert judged(monkeypatch, lambda path, messages: messages.append(f"{MARKER}^Ann")).outcome == "message"
    for error in (ValueError("x"), RecursionError(), MemoryError(), SystemExit(1), KeyboardInterrupt()):
        verdict = judged(monkeypatch, raises(error))
        assert verdict.outcome == "crash" and type(error).__name__ in verdict.where
    assert judged(monkeypatch, lambda path, messages: time.sleep(30), seconds=0.2).outcome == "hang"
    monkeypatch.setattr(harness, "MOST_MEMORY", 50 * 2**20)
    assert judged(monkeypatch, lambda path, messages: bytearray(100 * 2**20).count(0)).outcome == "memory"


def test_the_harness_checks_results() -> None:
    from lsms_rt.reading.load import load_slices

    (ct,) = load_slices(np.full((16, 16), -1000.0))
    harness.check_slice(ct)
    for field, value in (("hu", ct.hu * 9), ("spacing_mm", (0.0, 1.0)), ("position_mm", float("nan"))):
        bad = type(ct)(**{**vars(ct), field: value})
        with pytest.raises(harness.Wrong):
            harness.check_slice(bad)
    assert bad_message("a\nb") and bad_message("\x1b[31m") and not bad_message("the file: not DICOM; give one")


def test_a_dead_worker_is_a_finding() -> None:
    worker = _Worker()
    try:
        worker.give(Job("npy", 0, 0))
        worker._process.kill()
        worker._process.join(10)
        job, verdict = worker.answer()  # type: ignore[misc]
        assert job == Job("npy", 0, 0) and verdict.outcome == "crash" and "exit code -9" in verdict.detail
    finally:
        worker.stop()


def test_a_saved_case_is_the_case(tmp_path: Path) -> None:
    for form in ("dicomdir", "folder", "npy"):
        case = seed(form)
        case.write(tmp_path / form)
        saved = case_of_path(tmp_path / form)
        assert saved.files == case.files and saved.entry == case.entry
    engine_seed().write(tmp_path / "engine")
    assert judge(case_of_path(tmp_path / "engine")).outcome == "ok"


def test_gdcm_ends_only_a_process_of_its_own(tmp_path: Path) -> None:
    """GDCM aborts over the first file; the next one is read all the same, and right."""
    from lsms_rt.reading.load import load_slices

    path = seed("dicom_jpeg_lossless").write(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match="damaged or truncated pixels"):
            load_slices(CORPUS / "jpeg_lossless_64_bits.dcm")
        (ct,) = load_slices(path)
        np.testing.assert_array_equal(ct.hu[8:24, 8:24], raw_pixels()[0, 8:24, 8:24] - 1024.0)


@pytest.mark.parametrize("form", ["dicom_jpeg", "dicom_jpeg2000", "dicom_jpegls", "dicom_jpeg_lossless"])
def test_streams_state_their_size(form: str) -> None:
    ds = dcmread(io.BytesIO(seed(form).data()))
    (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
    assert stream_shape(stream) == (SIDE, SIDE, 1)
    assert stream_shape(stream[:8]) is None and stream_shape(b"") is None
    check_streams(ds, SIDE, SIDE, 1)
    with pytest.raises(ValueError, match="is not Rows x Columns"):
        check_streams(ds, SIDE, SIDE + 1, 1)
    if form == "dicom_jpeg2000":
        # A JP2 file around the stream.
        box = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0jp2c" + stream
        assert stream_shape(box) == (SIDE, SIDE, 1) and stream_shape(b"\0" * 40) is None


def test_pictures_are_of_the_formats_that_are_named(tmp_path: Path) -> None:
    """Pillow goes by the content: an EPS file by the name of a.png would be run by Ghostscript."""
    from lsms_rt.reading.load import load_slices

    # Harmless, and as foreign.
    (tmp_path / "a.png").write_bytes(b"P5 16 16 255\n" + bytes(256))
    with pytest.raises(InputError, match="not a readable image"):
        load_slices(tmp_path / "a.png", stated=Stated(window=(50, 350)))
