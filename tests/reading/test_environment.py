"""Failures of the machine are said as such: no healthy file is called damaged for them, or left out of a series."""

from __future__ import annotations

import errno
import importlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import dataset, series
from fuzzing.seeds import seed
from PIL import Image

from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slices

FORMS = ("dicom", "folder", "zip", "dicomdir", "npy", "png16", "tiff", "nifti", "nifti_gz")


@pytest.mark.parametrize(
    ("form", "code"), [*((form, errno.EMFILE) for form in FORMS), ("folder", errno.ENFILE), ("folder", errno.ENOMEM)]
)
def test_no_more_files_or_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, code: int) -> None:
    path = seed(form).write(tmp_path)
    load_slices(path)

    def fails(*args: Any, **more: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(io, "open", fails)
    monkeypatch.setattr(io, "FileIO", fails)
    monkeypatch.setattr("builtins.open", fails)
    monkeypatch.setattr("lsms_rt.reading.dicom.archive._Guarded", fails)
    with pytest.raises(MachineError, match=f"{os.strerror(code)}.; (close files|free memory)"):
        load_slices(path, left_out=LeftOut())


@pytest.mark.parametrize("error", [AttributeError("DOE"), ImportError("DOE"), SyntaxError("DOE")])
def test_a_library_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A folder here that has the name of one of its modules breaks python-gdcm, and with it pydicom."""
    series(tmp_path / "s", [0, 1])
    plain = importlib.import_module

    def fails(name: str, *more: Any) -> Any:
        if name.startswith("pydicom"):
            raise error
        return plain(name, *more)

    monkeypatch.setattr(importlib, "import_module", fails)
    for given in (tmp_path / "s", tmp_path / "s" / "0.dcm", dataset()):
        with pytest.raises(MachineError, match=f"cannot be imported .{type(error).__name__}.; install it again"):
            load_slices(given, left_out=LeftOut())


def test_an_array_is_not_mapped(tmp_path: Path) -> None:
    """Another process may shorten the file later: a mapped page that is gone ends the process."""
    for a in (np.full((20, 30), -1000.0), np.asfortranarray(np.arange(600.0).reshape(20, 30))):
        np.save(tmp_path / "a.npy", a)
        (ct,) = load_slices(tmp_path / "a.npy")
        (tmp_path / "a.npy").write_bytes(b"")
        np.testing.assert_array_equal(ct.hu, a)


def test_a_volume_is_not_mapped(tmp_path: Path) -> None:
    path = seed("nifti").write(tmp_path)
    slices = load_slices(path)
    path.write_bytes(b"")
    assert sum(float(ct.hu.sum()) for ct in slices) < 0


def test_pages_of_a_picture_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of directories of ten bytes each takes an hour to count."""
    from PIL.TiffImagePlugin import TiffImageFile

    pages = [Image.fromarray(np.full((40, 40), n, np.uint8)) for n in range(50)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    sought = []
    plain = TiffImageFile._seek

    def counted(image: TiffImageFile, frame: int) -> None:
        sought.append(frame)
        plain(image, frame)

    monkeypatch.setattr(TiffImageFile, "_seek", counted)
    with pytest.raises(InputError, match="an image of several pages"):
        load_slices(tmp_path / "a.tif")
    assert max(sought) == 1
