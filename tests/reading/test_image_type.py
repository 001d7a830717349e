"""ImageType: slices and axial reformats are read, projections and maps are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_dicom import dataset, enhanced, series
from pydicom.dataset import Dataset

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.reading.load import load_slice, load_slices

# vendors write small letters and long terms, and pydicom says so
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS", "ignore:The value length")

# after the first three values, vendors write their own terms
USUAL = (
    r"ORIGINAL\PRIMARY\AXIAL", r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI", r"ORIGINAL\PRIMARY\AXIAL\CT_SOM7 SPI DUAL\STD",
    r"ORIGINAL\PRIMARY\AXIAL\HELIX", r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SEQ", r"DERIVED\PRIMARY\AXIAL",
    r"ORIGINAL\PRIMARY\AXIAL\NORMAL", r"DERIVED\PRIMARY\AXIAL\JP2K LOSSY 6:1", r"ORIGINAL\PRIMARY\VOLUME\NONE",
    r"ORIGINAL\PRIMARY\AXIAL\CALCIUM SCORE", r"ORIGINAL\PRIMARY\AXIAL\3D", r"DERIVED\PRIMARY\AXIAL\LOSSY RATIO 6",
    r"ORIGINAL\PRIMARY\PERFUSION\NONE", r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI\5 MIN", r"ORIGINAL\PRIMARY\AXIAL\MIXED",
)  # fmt: skip
DERIVED = (
    r"DERIVED\SECONDARY\REFORMATTED\AVERAGE", r"DERIVED\SECONDARY\AXIAL\CT_SOM5 MPR", r"DERIVED\SECONDARY\MPR",
    r"ORIGINAL\SECONDARY\AXIAL", r"DERIVED\PRIMARY\VOLUME_REFORMAT", r"DERIVED\SECONDARY\AVERAGE",
    r"ORIGINAL\PRIMARY\OTHER",
)  # fmt: skip
COMPUTED = (
    r"DERIVED\PRIMARY\AXIAL\VMI", r"DERIVED\SECONDARY\AXIAL\MONO_70KEV", r"DERIVED\PRIMARY\AXIAL\MAT_REMOVED",
    r"DERIVED\PRIMARY\AXIAL\CT_SOM5 DE VNC", r"DERIVED\PRIMARY\AXIAL\GSI MONO",
)  # fmt: skip
REJECTED = {
    "localizer": (r"ORIGINAL\PRIMARY\LOCALIZER", r"ORIGINAL\PRIMARY\LOCALIZER\CT_SOM5 TOP", r"DERIVED\PRIMARY\SCOUT"),
    "intensity projection": (
        r"DERIVED\SECONDARY\PROJECTION IMAGE", r"DERIVED\SECONDARY\AXIAL\MAX IP", r"DERIVED\SECONDARY\MIN_IP",
        r"DERIVED\SECONDARY\AXIAL\CT_SOM5 MIP", r"DERIVED\SECONDARY\AXIAL\MinIP", r"DERIVED\SECONDARY\REFORMATTED\MAX",
        r"DERIVED\PRIMARY\VOLUME\MAXIMUM", r"DERIVED\SECONDARY\AXIAL\MIP_10", r"ORIGINAL\SECONDARY\MIP",
    ),
    "screen capture": (
        r"DERIVED\SECONDARY\SCREEN SAVE", r"DERIVED\SECONDARY\AXIAL\VRT", r"DERIVED\SECONDARY\3D",
        r"DERIVED\SECONDARY\AXIAL\FUSION",
    ),
    "a map of a material": (
        r"DERIVED\PRIMARY\AXIAL\MAT_SPECIFIC", r"DERIVED\PRIMARY\AXIAL\EFF_ATOMIC_NUM", r"DERIVED\PRIMARY\AXIAL\ZEFF",
        r"DERIVED\PRIMARY\AXIAL\ELECTRON_DENSITY", r"DERIVED\SECONDARY\AXIAL\CT_SOM5 DE IODINE",
        r"ORIGINAL\PRIMARY\AXIAL\MAT_VALUE_BASED", r"DERIVED\SECONDARY\AXIAL\Z EFFECTIVE", r"DERIVED\PRIMARY\RHO_Z",
        r"DERIVED\PRIMARY\AXIAL\ZEFFECTIVE", r"DERIVED\SECONDARY\AXIAL\CALCIUM", r"DERIVED\SECONDARY\URIC_ACID",
        r"DERIVED\SECONDARY\AXIAL\FAT FRACTION",
    ),
    "a perfusion map": (
        r"DERIVED\PRIMARY\AXIAL\PERFUSION", r"DERIVED\PRIMARY\PERFUSION\RCBF", r"DERIVED\PRIMARY\CBV",
        r"DERIVED\SECONDARY\AXIAL\PERF_MAP", r"DERIVED\SECONDARY\AXIAL\FLOW",
    ),
    "a difference": (
        r"DERIVED\SECONDARY\SUBTRACTION", r"DERIVED\PRIMARY\VOLUME\STD_DEVIATION", r"DERIVED\SECONDARY\RATIO",
        r"DERIVED\SECONDARY\AXIAL\DIFFERENCE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", [*USUAL, *DERIVED, *COMPUTED])
def test_slices_in_hu_are_read(text: str) -> None:
    notes = load_slice(dataset(ImageType=text.split("\\"))).notes
    assert len(notes) == (text not in USUAL)
    assert all(("monoenergetic" if text in COMPUTED else "otherwise derived") in note for note in notes)


@pytest.mark.parametrize(("words", "text"), [(words, text) for words, texts in REJECTED.items() for text in texts])
def test_other_images_are_rejected(words: str, text: str) -> None:
    with pytest.raises(InputError, match=f"^Dataset: [^;]*{words}.*; give the original axial series$"):
        slices_from_dataset(dataset(ImageType=text.split("\\")))


def test_a_frame_of_another_kind_rejects_its_file() -> None:
    assert len(slices_from_dataset(enhanced(flavor="CARDIAC"))) == 3
    ds = enhanced()
    ds.PerFrameFunctionalGroupsSequence[1].CTImageFrameTypeSequence[0].FrameType[3] = "SUBTRACTION"
    with pytest.raises(InputError, match="a difference"):
        slices_from_dataset(ds)


@pytest.mark.parametrize(
    ("code", "words"), [("113078", "projection"), ("113074", "rendering"), ("113062", "a difference"), ("113072", None)]
)
def test_the_code_of_a_derivation_decides_too(code: str, words: str | None) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code, "DCM"
    ds = dataset(DerivationCodeSequence=[item])
    # multiplanar reformatting
    if words is None:
        assert load_slice(ds).side_known
        return
    with pytest.raises(InputError, match=rf"{words}.* \(DerivationCodeSequence\)"):
        load_slice(ds)


def test_without_an_image_type_nothing_is_said() -> None:
    assert load_slice(dataset(ImageType=None)).notes == () and load_slice(dataset(ImageType="")).notes == ()


def test_a_series_of_projections_in_the_folder_is_no_choice(tmp_path: Path) -> None:
    series(tmp_path, [0, 5, 10])
    mip = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    series(tmp_path, [0, 5], "mip", ImageType=mip, SeriesInstanceUID="1.2.9", SeriesNumber=9)
    assert len(load_slices(tmp_path)) == 3
