"""Exit codes that do not depend on who reads the output, and of a machine that fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import SLICE, TEXT, refused

from lsms_rt.cli import doctor
from lsms_rt.cli.exit_codes import ExitCode
from lsms_rt.cli.terminal import UntilClosed


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_ends_does_not_change_the_exit_code(tmp_path: Path, stream: str) -> None:
    (tmp_path / "bad.npy").write_bytes(b"")
    command = [sys.executable, "-m", "lsms_rt.cli", "predict", "demo", SLICE, str(tmp_path / "bad.npy")]
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: writer}
    done = subprocess.run([*command, "--text", TEXT, "--json", "-o", str(tmp_path / "out")], **streams)
    os.close(writer)
    assert done.returncode == 5
    assert (tmp_path / "out" / "results.json").exists()


def test_a_stream_takes_no_more_once_its_reader_has_ended() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as plain:
        stream = UntilClosed(plain)
        assert stream.write("x" * 100_000) == 100_000
        stream.flush()
        print("more", file=stream)
        assert stream.encoding == plain.encoding


@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, 3), (errno.EIO, 3), (errno.EACCES, 2), (errno.EPIPE, 2)])
def test_a_full_disk_is_no_wrong_usage(
    code: int, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(doctor, "examine", full)
    refused(capsys, expected, os.strerror(code), "doctor")


def test_all_exit_codes_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    table = page.partition("## Exit codes")[2].partition("## ")[0]
    assert [int(row.split("|")[1]) for row in table.splitlines() if row[2:3].isdigit()] == sorted(ExitCode)


def test_an_infinite_value_is_in_no_record(tmp_path: Path) -> None:
    from lsms_rt.bench.records import write

    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a.json", {"kind": "engines", "value": np.inf})
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a.json", {"kind": "engines", "rows": [{"value": float("nan")}]})
    assert not list(tmp_path.iterdir())
