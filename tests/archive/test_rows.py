"""Which series an archive holds."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.archive.rows import rows_of
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.errors import InputError


def write(root: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def found(root: Path) -> list[str]:
    return [str(Path(row.path).relative_to(root)) for row in rows_of(root)]


def test_every_folder_with_files_and_none_below_is_a_series(tmp_path: Path) -> None:
    write(tmp_path, "b/2/0.dcm", "b/10/0", "a/1/0.dcm", "a/1/1.dcm", "empty.d/.hidden")
    assert found(tmp_path) == ["a/1", "b/10", "b/2"]


def test_files_that_are_series_are_found_beside_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/one.zip", "a/two.nii.gz", "three.NII", "b/0.dcm")
    assert found(tmp_path) == ["a/one.zip", "a/two.nii.gz", "b", "three.NII"]


def test_a_folder_with_dicom_files_is_a_series_with_all_below(tmp_path: Path, phantom_case: Any) -> None:
    """As predict reads it; else its subfolders would be read twice."""
    (tmp_path / "p" / "more").mkdir(parents=True)
    write_slice(tmp_path / "p" / "0", phantom_case, 0, "case")
    write(tmp_path, "p/more/1.dcm")
    assert found(tmp_path) == ["p"]


def test_other_files_beside_folders_are_no_series(tmp_path: Path, phantom_case: Any) -> None:
    write(tmp_path, "list.csv", "p/notes.txt", "p/s/0.dcm")
    write_slice(tmp_path / "DICOMDIR", phantom_case, 0, "case")
    assert found(tmp_path) == ["p/s"]


def test_a_folder_of_damaged_files_is_a_series(tmp_path: Path) -> None:
    """Its reader says what is wrong: nothing may vanish."""
    write(tmp_path, "p/s/0", "p/s/1", data=b"")
    assert found(tmp_path) == ["p/s"]


def test_links_to_folders_are_told_and_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A series' process lets errors alone through, also where a test made one in this process.
    caplog.set_level(logging.WARNING, "lsms_rt")
    write(tmp_path, "a/s/0.dcm")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == ["a/s"]
    assert caplog.messages == ["links to folders (1) are not followed, they may lead anywhere; use a manifest"]


def test_a_link_to_itself_is_a_damaged_file(tmp_path: Path) -> None:
    write(tmp_path, "a/0.dcm")
    (tmp_path / "a" / "loop").symlink_to("loop")
    assert found(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_read_is_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs itself alone, and its reader says why."""
    write(tmp_path, "a/0.dcm", "b/0.dcm")
    scandir = os.scandir

    def refused(path: str) -> Any:
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert found(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("name", ["", "list.txt", "absent"])
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "other", "list.txt")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no series|neither a folder"):
        rows_of(tmp_path / "nothing" if not name else tmp_path / "other" / name)


def manifest(file: Path, columns: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), file)
    return file


def test_a_manifest_names_series_in_its_order(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.parquet", {"other": [1.5, 2.5], "series": [None, 3], "input": ["b", "/data/a.zip"]})
    rows = rows_of(path)
    assert [(row.path, row.series) for row in rows] == [(str(tmp_path / "b"), None), ("/data/a.zip", "3")]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"path": ["a"]}, "no column input"),
        ({"input": ["a"], "text": ["b"]}, "column text"),
        ({"input": ["a", " "]}, "row 2: input is no path"),
        ({"input": ["a", "a\0b"]}, "row 2: input is no path"),
        ({"input": [1]}, "row 1: input is no path"),
        ({"input": ["a"], "series": [True]}, "row 1: series"),
        ({"input": []}, "holds no series"),
        ({"input": ["a", "b", "./a"]}, "rows 1 and 3 are the same series"),
    ],
)
def test_manifests_that_are_none_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(manifest(tmp_path / "m.parquet", columns))


def test_a_manifest_may_name_several_series_of_a_folder(tmp_path: Path) -> None:
    assert len(rows_of(manifest(tmp_path / "m.parquet", {"series": ["1", "2"], "input": ["a", "a"]}))) == 2


def test_a_manifest_that_is_not_in_utf_8_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    latin = pyarrow.array([b"M\xfc"]).view(pyarrow.string())
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        rows_of(manifest(tmp_path / "m.parquet", {"input": latin}))


def test_a_manifest_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    write(tmp_path, "m.parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        rows_of(tmp_path / "m.parquet")
