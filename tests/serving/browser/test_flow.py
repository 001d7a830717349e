"""From an image to downloads, as a user goes through the page."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.data import demo_engine
from lsms_rt.writing.nifti import write_nifti

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]
# the first sentence's color
ORANGE = (230, 159, 0)
LEFT, RIGHT = "the lesion in the left lobe", "the lesion in the right lobe"


@pytest.fixture(scope="module")
def expected(series: list[Path]) -> list[list[Any]]:
    """What the engine itself finds: by sentence, by slice."""
    with Segmenter(demo_engine(), threads=1) as segmenter:
        by_slice = list(segmenter.predict_series(series[0].parent, [LEFT, RIGHT]))
    return [list(results) for results in zip(*by_slice, strict=True)]


def drop(visit: Any, path: Path) -> None:
    """Drop a file or folder on the page, as the system does."""
    events = visit.page.context.new_cdp_session(visit.page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        events.send("Input.dispatchDragEvent", {"type": kind, "x": 120, "y": 150, "data": data})


def test_from_a_dropped_folder_to_the_downloaded_mask(
    drawing: Any, series: list[Path], expected: list[list[Any]], tmp_path: Path
) -> None:
    drop(drawing, series[0].parent)
    drawing.page.wait_for_selector("#about", state="visible")
    assert drawing.text("#about-text").startswith("6 slices of 128 ")
    drawing.ask(LEFT, RIGHT)
    pixels = [[int(result.mask.sum()) for result in results] for results in expected]
    assert drawing.drawn() == pixels
    assert sum(map(sum, pixels)) > 0
    # the table, and the summary
    rows = drawing.page.locator("#table tbody tr")
    assert rows.count() == sum(result.found for results in expected for result in results)
    assert f"Found in {sum(r.found for r in expected[0])} of 6 slices" in drawing.text("#summary li:nth-child(1)")
    # the files
    for n, results in enumerate(expected, 1):
        own, saved = tmp_path / f"own_{n}.nii.gz", drawing.save(f"NIfTI mask {n}", tmp_path / f"mask_{n}.nii.gz")
        write_nifti(results, own)
        np.testing.assert_array_equal(nibabel.load(saved).get_fdata(), nibabel.load(own).get_fdata())
        np.testing.assert_allclose(nibabel.load(saved).affine, nibabel.load(own).affine)
    assert json.loads(drawing.save("Results (JSON)", tmp_path / "results.json").read_text())["run"]["slices"] == 6
    with zipfile.ZipFile(drawing.save("All (ZIP)", tmp_path / "all.zip")) as archive:
        names = {"segmentation.dcm", "report.dcm", "key_1.dcm", "mask_1.nii.gz", "montage.png", "results.json"}
        assert names <= set(archive.namelist())


def test_a_found_slice_is_one_key_away_and_told_in_words(drawing: Any, series: list[Path]) -> None:
    drawing.send(*series)
    drawing.ask(LEFT)
    row = drawing.page.locator("#table tbody tr").first
    cells = row.locator("th, td").all_inner_texts()
    row.locator("button").focus()
    drawing.page.keyboard.press("Enter")
    told = f"Axial slice {cells[0]} of 6: 1: “{LEFT}” outlined, {cells[3]} mm²"
    assert drawing.alternative() == told
    assert drawing.text("#caption") == told
    assert row.get_attribute("aria-current") == "true"
    # keys in the pictures, and the slider
    drawing.page.focus("#holder")
    drawing.page.keyboard.press("End")
    assert drawing.alternative().startswith("Axial slice 6 of 6")
    drawing.page.keyboard.press("ArrowDown")
    assert drawing.page.get_attribute("#slice", "aria-valuetext").startswith("Axial slice 5 of 6")
    drawing.page.focus("#slice")
    drawing.page.keyboard.press("Home")
    assert drawing.alternative().startswith("Axial slice 1 of 6")
    # opaque, and then switched off: neither drawn nor told
    drawing.page.focus("#fill")
    drawing.page.keyboard.press("End")
    row.locator("button").click()
    assert drawing.colored(ORANGE) > 20
    drawing.page.uncheck("#rows .switch input")
    assert drawing.colored(ORANGE) == 0
    assert drawing.drawn() == []
    assert drawing.alternative().endswith("nothing outlined")


def test_nothing_found_is_a_state_of_its_own(visit: Any) -> None:
    visit.take_example(2)
    visit.ask("the abscess")
    assert visit.text(".notice").startswith("Nothing found")
    assert not visit.page.is_visible("#found")
    assert visit.page.get_by_role("button", name="Results (JSON)").is_visible()
    assert "DICOM SEG" not in visit.text("#downloads")


def test_words_write_themselves_and_unknown_ones_are_marked(visit: Any) -> None:
    visit.page.click("#words > summary")
    visit.page.click("#groups summary:has-text('Type')")
    visit.page.get_by_role("button", name="cyst", exact=True).click()
    field = visit.page.locator("#rows input[type=text]")
    assert field.input_value() == "cyst"
    visit.type("the leison in the left lobe")
    visit.page.wait_for_selector(".mirror mark")
    assert visit.page.locator(".mirror mark").all_text_contents() == ["leison"]
    assert field.get_attribute("aria-invalid") == "true"
    assert "names no lesion" in visit.text(".told")
    visit.page.click("text=use “lesion”")
    assert field.input_value() == "the lesion in the left lobe"
    visit.page.wait_for_selector(".told", state="hidden")
    assert visit.page.locator(".mirror mark").count() == 0


def test_what_is_not_understood_is_not_asked(visit: Any) -> None:
    visit.take_example(1)
    visit.ask("the cyst", "no lesion in the left lobe")
    assert visit.text(".notice").startswith("Not understood: sentence 2")
    assert "what is negated" in visit.text("#rows > li:nth-child(2) .told").lower()
    assert not [url for url in visit.requests if url.endswith("/jobs")]
    assert visit.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Sentence 2"


def test_a_nifti_file_gets_the_files_that_apply(visit: Any, tmp_path: Path) -> None:
    hu = np.full((64, 64, 3), 60, np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "a.nii.gz")
    visit.send(tmp_path / "a.nii.gz")
    visit.ask("the cyst")
    assert "Not written: segmentation.dcm" in visit.text("#not-written")
    assert "NIfTI mask" in visit.text("#downloads")


def test_an_image_without_a_side_shows_none(visit: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((64, 64), 60.0, np.float32))
    visit.send(tmp_path / "a.npy")
    assert visit.page.is_visible("#side")
    assert "Side not known" in visit.text("#about-notes")


def test_one_of_several_series_is_chosen(visit: Any, series: list[Path], tmp_path: Path) -> None:
    import pydicom

    for n, path in enumerate(series[:4]):
        image = pydicom.dcmread(path)
        image.SeriesNumber = 1 + n // 2
        image.SeriesInstanceUID = f"1.2.3.{1 + n // 2}"
        image.save_as(tmp_path / f"{n}.dcm")
    visit.page.set_input_files("#files", [str(path) for path in sorted(tmp_path.iterdir())])
    visit.page.click("text=Series 2: 2 slices")
    visit.page.wait_for_selector("#about", state="visible")
    assert visit.text("#about-text").startswith("2 slices")
