"""The images that a DICOMDIR refers to, and none outside of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_dicom import CT, dataset, save, series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from lsms_rt.errors import InputError
from lsms_rt.reading import limits
from lsms_rt.reading.dicom import dicomdir as directory
from lsms_rt.reading.dicom.series import read_dicomdir
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices
from lsms_rt.reading.quiet import quiet_pydicom


def record(kind: str, *file: str, **tags: Any) -> Dataset:
    ds = Dataset()
    ds.OffsetOfTheNextDirectoryRecord, ds.RecordInUseFlag, ds.DirectoryRecordType = 0, 0xFFFF, kind
    if file:
        tags = {"ReferencedFileID": list(file), "ReferencedSOPClassUIDInFile": CT} | tags
    # Names that are not all capitals raise warnings.
    with quiet_pydicom():
        for name, value in tags.items():
            setattr(ds, name, value)
    return ds


def dicomdir(path: Path, *records: Dataset) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    ds.FileSetID, ds.DirectoryRecordSequence = "DOE", list(records)
    return save(ds, path)


def images(*names: str, **tags: Any) -> list[Dataset]:
    return [record("PATIENT", PatientName="Doe"), *(record("IMAGE", "S", name, **tags) for name in names)]


def test_a_dicomdir_is_read_by_its_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "S", [0, 1, 2, 3, 4])
    (tmp_path / "S" / "MR").write_text("not looked at")
    deleted = images("3.dcm", RecordInUseFlag=0)
    other = images("MR", ReferencedSOPClassUIDInFile="1.2.840.10008.5.1.4.1.1.4")
    records = [*images("2.dcm", "0.dcm", "1.dcm", "1.dcm"), *deleted, *other]
    path = dicomdir(tmp_path / "DICOMDIR", *records)
    slices = load_slices(path)
    assert [(ct.source, ct.position_mm) for ct in slices] == [
        ("image 2 of 3", 0), ("image 3 of 3", 1), ("image 1 of 3", 2),
    ]  # fmt: skip
    assert not caplog.records
    # The folder, whatever its DICOMDIR says.
    assert len(load_slices(tmp_path)) == 5
    assert "1 files that are not DICOM images and 1 that are not CT" in caplog.text
    # It is found by its content, not by its name.
    path.rename(tmp_path / "index")
    assert len(load_slices(tmp_path / "index")) == len(read_dicomdir(tmp_path / "index")) == 3


def test_missing_images_are_told_one_by_one(tmp_path: Path) -> None:
    series(tmp_path / "S", [0, 1])
    path = dicomdir(tmp_path / "DICOMDIR", *images("0.dcm", "Doe", "1.dcm", "Doe2"))
    lines = [f"CT image {n} of 4 of the DICOMDIR is missing; copy the whole disc again" for n in (2, 4)]
    told = LeftOut()
    assert len(load_slices(path, left_out=told)) == 2 and told.damaged == lines
    with pytest.raises(InputError, match=f"^the file: {lines[0]}$"):
        load_slices(path)
    dicomdir(path, *images("Doe"))
    with pytest.raises(InputError, match=r"^the file: no CT image .*1 image records, 1 of CT, 1 of them missing"):
        load_slices(path)
    dicomdir(path)
    with pytest.raises(InputError, match="0 image records"):
        load_slices(path)


def test_an_image_record_without_a_file_is_missing(tmp_path: Path) -> None:
    series(tmp_path / "S", [0, 1])
    nameless = record("IMAGE", ReferencedSOPClassUIDInFile=CT)
    path = dicomdir(tmp_path / "DICOMDIR", *images("0.dcm", "1.dcm"), nameless)
    told = LeftOut()
    assert len(load_slices(path, left_out=told)) == 2
    assert told.damaged == ["CT image 3 of 3 of the DICOMDIR is missing; copy the whole disc again"]


def test_small_letters_on_disk_are_found(tmp_path: Path) -> None:
    series(tmp_path / "s", [0, 1], "ct")
    path = dicomdir(tmp_path / "DICOMDIR", *images("CT0.DCM", "CT1.DCM"))
    assert len(load_slices(path)) == 2


@pytest.mark.parametrize("place", ["..", "/", "link", "folder link", "absent"])
def test_a_dicomdir_stays_in_its_folder(tmp_path: Path, place: str) -> None:
    series(tmp_path / "out", [7])
    root = tmp_path / "in"
    series(root / "S", [0])
    (root / "link").symlink_to(tmp_path / "out" / "0.dcm")
    (root / "folder").symlink_to(tmp_path / "out")
    parts = {
        "..": ("..", "out", "0.dcm"),
        "/": ("/", *(tmp_path / "out" / "0.dcm").parts[1:]),
        "link": ("link",),
        "folder link": ("folder", "0.dcm"),
        "absent": ("..", "Doe"),
    }[place]
    path = dicomdir(root / "DICOMDIR", *images("0.dcm"), record("IMAGE", *parts))
    with pytest.raises(InputError, match="^the file: .*outside of its folder; do not trust it") as caught:
        load_slices(path, left_out=LeftOut())
    assert "Doe" not in str(caught.value)


def test_a_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    series(tmp_path / "in" / "S", [0])
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "S" / "0.dcm")
    # The user's own way to the folder.
    (tmp_path / "way").symlink_to(tmp_path / "in")
    dicomdir(tmp_path / "in" / "DICOMDIR", record("IMAGE", "link"))
    assert len(load_slices(tmp_path / "way" / "DICOMDIR")) == 1


def test_impossible_paths_and_damage(tmp_path: Path) -> None:
    path = dicomdir(tmp_path / "DICOMDIR", *images("zero"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"S\\zero", b"S\\ze\0o"))
    with pytest.raises(InputError, match="contains an invalid path"):
        load_slices(path)
    path.write_bytes(data.replace(b"S\\zero", b"S\\.."))
    with pytest.raises(InputError):
        load_slices(path)
    # Every cut leads to one of our errors.
    for cut in range(200, len(data), 13):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError):
            load_slices(path)
    with pytest.raises(InputError, match="not a DICOMDIR"):
        read_dicomdir(save(dataset(), tmp_path / "image"))


def test_limits_of_a_dicomdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "S", [0])
    path = dicomdir(tmp_path / "DICOMDIR", *images("0.dcm"))
    for module, name, value, words in (
        (limits, "MAX_FILES", 1, "2 records, over the limit of 1"),
        (directory, "MAX_ITEMS", 1, "2 items, over the limit of 1"),
        (directory, "MAX_DICOMDIR_BYTES", 100, "over the limit of 0 MiB"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            with pytest.raises(InputError, match=words):
                load_slices(path)


def test_pydicoms_own_dicomdir() -> None:
    path = get_testdata_file("DICOMDIR")
    with pytest.raises(InputError, match=r"series or stacks; choose one with --series") as caught:
        load_slices(path)
    # No UID may be shown.
    assert "2.16" not in str(caught.value) and "1.3.6" not in str(caught.value)
