"""R and L stand on pictures whose side is known, and nothing on others but a line that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_results import answer, answers, header
from PIL import Image, ImageDraw

from lsms_rt.reading.load import load_slice
from lsms_rt.reading.stated import Stated
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import SIDE_UNKNOWN
from lsms_rt.writing.montage import save_montage
from lsms_rt.writing.positions import position_of

HU = np.full((37, 101), -100, np.int16)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are drawn."""
    texts: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def text(self: Any, xy: Any, text: str, *args: Any, **more: Any) -> None:
        texts.append(text)
        plain(self, xy, text, *args, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def image(kind: str, folder: Path) -> Any:
    np.save(folder / "a.npy", HU)
    Image.fromarray((HU + 1024).astype(np.uint16)).save(folder / "a.png")
    return {"array": HU, "npy": folder / "a.npy", "png": folder / "a.png", "dicom": header()}[kind]


@pytest.mark.parametrize("kind", ["array", "npy", "png", "dicom"])
@pytest.mark.parametrize("orientation", [None, "axial"])
def test_overlays(kind: str, orientation: str | None, tmp_path: Path, drawn: list[str]) -> None:
    result = answer(load_slice(image(kind, tmp_path), stated=Stated(orientation=orientation)))
    result.save_overlay(tmp_path / "o.png")
    known = kind == "dicom" or orientation is not None
    assert result.to_dict()["side_known"] == known
    assert drawn.count("R") == drawn.count("L") == (2 if known else 0)
    assert (SIDE_UNKNOWN in " ".join(drawn)) != known


def test_montage(tmp_path: Path, drawn: list[str]) -> None:
    def save(slices: list[Any]) -> None:
        record = {"number": 1, "pixels": 3, "area_mm2": None}
        save_montage(tmp_path / "m.png", [Answer(ct, answer(ct).mask, "", record) for ct in slices], "end")

    known = load_slice(header())
    save([known, known])
    assert drawn.count("R") == 2 and drawn[-1] == "end"
    drawn.clear()
    save([known, load_slice(HU)])
    assert drawn.count("R") == 1 and drawn[-1] == f"end; {SIDE_UNKNOWN}"


def test_cosines_that_are_too_long_do_not_scale_space(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    from lsms_rt.writing.nifti import write_nifti

    results = answers([(0, 0, 0), (0, 0, 5)], ImageOrientationPatient=[1.04, 0, 0, 0, -0.96, 0])
    position = position_of(results[0].ct.header, 0, "x")
    assert position.cosines.tolist() == [1, 0, 0, 0, -1, 0]
    write_nifti(results, tmp_path / "a.nii")
    assert np.diag(nibabel.load(tmp_path / "a.nii").affine)[:3] == pytest.approx([-0.5, 0.8, 5])
    # Rounded ones are as in the image.
    tilted = answers([(0, 0, 0)], ImageOrientationPatient=[1, 0, 0, 0, 0.9272, -0.3746])
    assert position_of(tilted[0].ct.header, 0, "x").cosines.tolist() == [1, 0, 0, 0, 0.9272, -0.3746]
