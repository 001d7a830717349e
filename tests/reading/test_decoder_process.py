"""The process that decodes: no file gets another one's pixels or memory, and its failures are not the file's."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing.seeds import raw_pixels, seed

from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading import budget
from lsms_rt.reading.budget import OverBudgetError
from lsms_rt.reading.dicom import decoder_process, read
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices

pytest.importorskip("jpeg_ls")

CORPUS = Path(__file__).parent / "corpus"
ENDLESS = CORPUS / "jpegls_endless.dcm"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return seed("dicom_jpegls").write(tmp_path)


def is_right(path: Path) -> bool:
    (ct,) = load_slices(path)
    return np.array_equal(ct.hu[8:24, 8:24], raw_pixels()[0, 8:24, 8:24] - 1024.0)


def process_id() -> int:
    process = decoder_process._child._process
    assert process is not None
    return process.pid


def test_an_endless_stream_is_ended_and_the_process_goes_on(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_right(good)
    before = process_id()
    monkeypatch.setattr(decoder_process, "CPU_SECONDS", 1)
    with pytest.raises(InputError, match="^the file: its pixels take more than 1 s to decode; export it uncompressed$"):
        load_slices(ENDLESS)
    assert is_right(good) and process_id() == before


@pytest.mark.slow
def test_many_endless_streams_are_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of them ends with the input's time, not with the last file."""
    for n in range(50):
        (tmp_path / f"{n}.dcm").write_bytes(ENDLESS.read_bytes())
    monkeypatch.setattr(decoder_process, "CPU_SECONDS", 1)
    monkeypatch.setattr(budget, "MAX_SECONDS", 1)
    left_out = LeftOut()
    with pytest.raises(OverBudgetError, match="^the folder: reading took more than the limit of 1 s"):
        load_slices(tmp_path, left_out=left_out)
    assert len(left_out.damaged) < 3


def test_a_crash_ends_only_its_own_fork(good: Path) -> None:
    pytest.importorskip("gdcm")
    assert is_right(good)
    before = process_id()
    with pytest.raises(InputError, match="damaged or truncated pixels"):
        load_slices(CORPUS / "jpeg_lossless_64_bits.dcm")
    assert is_right(good) and process_id() == before


def test_a_process_that_was_killed_between_files_is_not_damage(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its end is noticed only when the file is sent."""
    assert is_right(good)
    process = decoder_process._child._process
    assert process is not None
    os.kill(process.pid, 9)
    process.wait()
    monkeypatch.setattr(process, "poll", lambda: None)
    assert is_right(good) and process_id() != process.pid


def test_an_interrupted_file_leaves_no_answer_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, or a server's timeout, while pixels are waited for."""
    first, second = seed("dicom_jpeg").write(tmp_path), seed("dicom_jpegls").write(tmp_path / "b")
    assert is_right(second)

    def interrupted(file: Any) -> tuple[bytes, bytes]:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(decoder_process, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_slices(first)
    assert is_right(second)


@pytest.mark.parametrize("executable", ["/nonexistent/python", "/bin/true", "/bin/cat"])
def test_a_process_that_cannot_start_is_not_damage(
    good: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    """sys.executable is not Python where Python is embedded."""
    decoder_process._child.stop()
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(MachineError, match="the process that decodes .*sys.executable"):
        load_slices(good.parent, left_out=LeftOut())


def test_threads_do_not_wait_for_one_that_decodes(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, filters = seed("dicom").write(tmp_path / "plain"), list(warnings.filters)
    begun, ended, answers = threading.Event(), threading.Event(), list[bool]()
    decode = read.decode

    def slow(*args: Any) -> Any:
        begun.set()
        assert ended.wait(60)
        return decode(*args)

    monkeypatch.setattr(read, "decode", slow)
    thread = threading.Thread(target=lambda: answers.append(is_right(good)))
    thread.start()
    assert begun.wait(60)
    assert is_right(plain) and not answers
    ended.set()
    thread.join()
    assert answers == [True] and warnings.filters == filters
