"""The file that bench writes: checked before anything is measured, and written at the end."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from lsms_rt.bench.records import ENGINES, record_of
from lsms_rt.cli.bench import check_output, print_record
from lsms_rt.errors import InputError


@pytest.mark.parametrize("name", ["run.json", "new/folder/run.json"])
def test_the_check_leaves_nothing(tmp_path: Path, name: str) -> None:
    check_output(tmp_path / name)
    assert not list(tmp_path.iterdir())
    check_output(None)


def test_an_earlier_record_stays_until_the_new_one_is_written(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text("before")
    check_output(file)
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["", "file/run.json", "x" * 300])
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^-o .*; give another"):
        check_output(tmp_path / name)


def test_a_record_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, file = record_of(ENGINES, ("numpy",), engines={}), tmp_path / "new" / "run.json"
    print_record(record, Namespace(json=True, output=file))
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(file.read_text()) == record
    assert f"record written to {file}" in err
