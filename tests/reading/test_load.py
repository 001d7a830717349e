"""Arrays, pictures and volumes become HU in the model's frame; hostile ones, one-line errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, LsmsError, MachineError
from lsms_rt.preprocess import to_tensor
from lsms_rt.privacy import label, names_shown, show_names, with_hint
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.reading.stated import Stated


def noise(shape: tuple[int, int] = (37, 101), seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1000, 1000, shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float16, np.float32, np.float64])
def test_array_is_taken_as_it_is(dtype: Any) -> None:
    a = noise().astype(dtype)
    ct = load_slice(a)
    assert ct.hu.dtype == np.float32 and ct.hu.flags.c_contiguous and ct.spacing_mm is None
    np.testing.assert_array_equal(ct.hu, a.astype(np.float32))
    assert ct.hu is not a


def test_hu_are_clamped() -> None:
    a = noise()
    a[0, :2] = -5000, 40000
    assert load_slice(a).hu[0, :2].tolist() == [-1024, 3071]


def nan_image() -> Any:
    a = noise()
    a[3, 4:6] = np.nan
    return a


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((32, 32), bool), "bool"),
        (np.zeros((32, 32), complex), "complex"),
        (np.zeros((32, 32), object), "object"),
        (nan_image(), "2 of 3737"),
        (np.zeros((3, 32, 32)), "3 axes"),
        (np.zeros((15, 32)), "15x32"),
        (np.zeros((0, 0)), "0x0"),
        (np.broadcast_to(np.float32(0), (4097, 4096)), "4097x4096"),
        ([[1, 2]], "list"),
        (None, "NoneType"),
        ("/nowhere/a.dcm", "no such file"),
    ],
)
def test_hostile_inputs(image: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_slices(image)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_npy(tmp_path: Path) -> None:
    a = noise()
    np.save(tmp_path / "a.npy", a)
    np.testing.assert_array_equal(load_slice(tmp_path / "a.npy").hu, a)
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "c.npy").write_bytes(b"\x93NUMPY rubbish")
    (tmp_path / "d.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:1000])
    (tmp_path / "e.npy").write_bytes(b"")
    for name in "bcde":
        with pytest.raises(InputError, match=r"numpy\.save|the file is empty"):
            load_slice(tmp_path / f"{name}.npy")


def test_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / "a.png")
    ct = load_slice(tmp_path / "a.png", stated=Stated(window=(50, 350)))
    assert ct.hu[0, 0] == -125 and ct.hu[-1, -1] == pytest.approx(225) and ct.source == "the file"
    assert ct.notes == ("an 8-bit image is assumed to show level 50, width 350 HU, as given",)
    # A usual window of the liver has no fat.
    assert len(load_slice(tmp_path / "a.png", stated=Stated(window=(60, 150))).notes) == 1
    assert load_slices(tmp_path / "a.png", stated=Stated(window=(0, 1000)))[0].hu[-1, -1] == pytest.approx(500)
    caplog.clear()
    Image.fromarray(np.full((16, 20), 900, np.uint16)).save(tmp_path / "b.png")
    ct = load_slice(tmp_path / "b.png")
    assert (ct.hu == -124).all() and ct.notes == ("a 16-bit image is assumed to contain HU + 1024",)
    assert ct.notes[0] in caplog.text
    # A 16-bit image has HU of its own: the window does not change them.
    np.testing.assert_array_equal(load_slice(tmp_path / "b.png", stated=Stated(window=(50, 350))).hu, ct.hu)
    Image.fromarray(gray).convert("RGB").save(tmp_path / "c.png")
    with pytest.raises(InputError, match="mode RGB"):
        load_slice(tmp_path / "c.png", stated=Stated(window=(50, 350)))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "d.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "d.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="not a readable image"):
        load_slice(tmp_path / "d.png", stated=Stated(window=(50, 350)))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_eight_bits_mean_nothing_without_a_window(tmp_path: Path, ending: str) -> None:
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / f"a.{ending}")
    with pytest.raises(InputError, match=r"^the file: an 8-bit image.*--window 50 350.*window=\(50, 350\)"):
        load_slice(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("window", [(0, 0), (50, -1), (float("nan"), 1), (0, float("inf"))])
def test_windows_refused(window: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="width above 0"):
        load_slice(noise(), stated=Stated(window=window))


def test_names_of_files_and_fields_stay_out_of_messages(tmp_path: Path) -> None:
    """A file of each format, each of them damaged in a folder and a file that are named after a patient."""
    folder = tmp_path / "Zebra"
    folder.mkdir()
    np.save(folder / "Zebra1.npy", np.zeros((20, 20), dtype=[("Zebra", np.float32)]))
    np.save(folder / "Zebra2.npy", np.zeros((3, 20, 20)))
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "Zebra3.png")
    for n, ending in enumerate(("npy", "png", "tif", "nii", "nii.gz", "zip", "dcm", "", "npy.gone"), 4):
        if ending != "npy.gone":
            (folder / f"Zebra{n}.{ending}").write_bytes(b"Zebra" * 100)
    files = [*folder.iterdir(), folder / "Zebra-gone.dcm", tmp_path / "Zebra-gone"]
    assert len(files) == 13
    # The one that is named like a slice.
    first = sorted(path.name for path in folder.iterdir()).index("Zebra10.dcm") + 1
    for path in (*files, folder):
        with pytest.raises(LsmsError) as caught:
            load_slices(path)
        begin = f"file {first} of 11: " if path == folder else "the "
        assert "Zebra" not in str(caught.value) and str(caught.value).startswith(begin), path
    show_names()
    try:
        for path in (*files, folder):
            with pytest.raises(LsmsError, match=f"^{'Zebra10.dcm' if path == folder else path.name}: "):
                load_slices(path)
    finally:
        show_names(False)


def test_labels() -> None:
    assert not names_shown() and label("/a/b/c.dcm", "the file") == "the file"
    show_names(True)
    try:
        assert names_shown() and label("/a/b/c.dcm", "the file") == "c.dcm" and label(Path("/"), "x") == "/"
        assert with_hint("what") == "what"
    finally:
        show_names(False)
    assert not names_shown() and "--names" in with_hint("what")


def test_an_array_without_air_is_remarked_on(caplog: pytest.LogCaptureFixture) -> None:
    load_slice(np.full((16, 16), 128, np.uint8))
    assert "below -50 HU" in caplog.text
    assert load_slice(noise()).notes == ()


def test_nifti_without_nibabel_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    with pytest.raises(MachineError, match="pip install nibabel"):
        load_slices(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAI", "PLS", "SRA", "ILP"])
def test_nifti_orientations(tmp_path: Path, codes: str) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    ras = np.random.default_rng(0).uniform(-900, 900, (40, 30, 3)).astype(np.float32)  # x, y, z
    image = nibabel.Nifti1Image(ras, np.diag([0.5, 0.8, 3, 1]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    image = image.as_reoriented(turn)
    nibabel.save(image, tmp_path / "a.nii.gz")
    slices = load_slices(tmp_path / "a.nii.gz")
    stored = np.asarray(image.dataobj)
    axis = next(n for n, c in enumerate(codes) if c in "SI")
    for z, ct in enumerate(slices):
        # Row 0 anterior, column 0 right.
        np.testing.assert_allclose(ct.hu, ras[::-1, ::-1, z].T, atol=1e-3)
        np.testing.assert_allclose(ct.to_input_grid(ct.hu), np.take(stored, ct.frame, axis), atol=1e-3)
        assert ct.spacing_mm == pytest.approx((0.8, 0.5)) and ct.position_mm == 3 * z
    with pytest.raises(InputError, match="3 slices"):
        load_slice(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").write_bytes(b"no volume")
    with pytest.raises(InputError, match="NIfTI"):
        load_slices(tmp_path / "b.nii")


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("transposed", [False, True])
def test_frame_round_trip(flips: tuple[bool, bool], transposed: bool) -> None:
    a = noise()
    ct = CtSlice(CtSlice.to_model_frame(a, flips, transposed), None, flips, transposed)
    np.testing.assert_array_equal(ct.to_input_grid(ct.hu), a)
    with pytest.raises(InputError, match="shape"):
        ct.to_input_grid(np.zeros((5, 5)))


@pytest.mark.parametrize("shape", [(512, 512), (37, 101), (101, 37), (16, 4096), (1023, 1021)])
@pytest.mark.parametrize("size", [64, 256])
def test_tensor(shape: tuple[int, int], size: int) -> None:
    tensor, place = to_tensor(load_slice(noise(shape)), size, (-160, 240))
    assert tensor.shape == (1, 1, size, size) and tensor.dtype == np.float32 and tensor.flags.c_contiguous
    assert tensor.min() >= -1 and tensor.max() <= 1
    assert max(place.rows, place.columns) == size and min(place.rows, place.columns) >= 1
    outside = np.ones((size, size), bool)
    outside[place.top : place.top + place.rows, place.left : place.left + place.columns] = False
    assert (tensor[0, 0][outside] == -1).all()


def test_tensor_window_and_spacing() -> None:
    hu = np.full((100, 100), 40, np.float32)
    # 50 mm high, 100 mm wide.
    tensor, place = to_tensor(CtSlice(hu, (0.5, 1.0)), 64, (-160, 240))
    assert (place.rows, place.columns, place.top, place.left) == (32, 64, 16, 0)
    np.testing.assert_allclose(tensor[0, 0, 16:48], 0, atol=1e-6)
    exact, _ = to_tensor(CtSlice(noise((64, 64))), 64, (-1024, 3071))
    np.testing.assert_allclose(exact[0, 0], (noise((64, 64)) + 1024) / 4095 * 2 - 1, atol=1e-6)
    with pytest.raises(InputError, match="window"):
        to_tensor(CtSlice(hu), 64, (240, -160))


def test_shrinking_does_not_alias() -> None:
    lines = np.where(np.indices((512, 512)).sum(0) % 2, 200, 0).astype(np.float32)
    tensor, _ = to_tensor(CtSlice(lines), 128, (0, 200))
    np.testing.assert_allclose(tensor[0, 0, 4:-4, 4:-4], 0, atol=0.02)


def test_errors_are_one_line_and_imports_light() -> None:
    assert str(LsmsError("a\nb\t c")) == "a b c"
    code = "import sys, lsms_rt.reading.load, lsms_rt.postprocess, lsms_rt.writing.overlay, lsms_rt.reading.dicom; " + (
        "print([m for m in ('pydicom', 'PIL', 'torch', 'scipy', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_picture_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((40, 40), n, np.uint8)) for n in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="several pages"):
        load_slice(tmp_path / "a.tif", stated=Stated(window=(50, 350)))
