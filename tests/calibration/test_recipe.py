"""Recipes: written, read, validated and matched with weights; and the summary of a calibration."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_answers import answer, compared, unit

from lsms_rt.calibration.calibrate import Calibration
from lsms_rt.calibration.recipe import RECIPE, Recipe, case_digest, read_recipe
from lsms_rt.calibration.search import SearchResult, Trial
from lsms_rt.calibration.sensitivity import Sensitivity
from lsms_rt.errors import InputError

GOOD = Recipe(
    weights_digest="ab" * 32, preset="tiny", image_size=64, method="minmax", layers={"image": {"x": 1.5}, "text": {}},
    kept={"image": ["y"]}, macs_share=0.5, max_dice_drop=0.005, slices_digest="cd" * 32,
)  # fmt: skip


def test_a_recipe_round_trip(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text(json.dumps(asdict(GOOD)))
    assert read_recipe(tmp_path) == read_recipe(tmp_path / RECIPE) == GOOD
    GOOD.check("ab" * 32, 64)
    with pytest.raises(InputError, match="is for weights abababababab.*but the checkpoint's are cdcdcdcdcdcd"):
        GOOD.check("cd" * 32, 64)
    with pytest.raises(InputError, match="use --image-size 64"):
        GOOD.check("ab" * 32, 128)
    assert GOOD.digest != replace(GOOD, layers={"image": {"x": 1.6}, "text": {}}).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, but this version of lsms-rt reads up to 1; update lsms-rt"),
        ({"format": None}, "is not a recipe: its format version is missing"),
        ({"layers": {"image": {"x": 0}}}, "range 0"),
        ({"layers": {"image": {"x": True}}}, "range True"),
        ({"layers": {"image": {"x": "1"}}}, "range '1'"),
        ({"layers": {"other": {}}}, "text and image"),
        ({"layers": {"image": {}, "text": {}}}, "has no INT8 layers"),
        ({"images": None}, "images is None, not of type list"),
        ({"layers": {"image": [1]}}, "map names to ranges"),
        ({"image_size": "64"}, "image_size is '64', not of type int"),
    ],
)
def test_bad_recipes_are_rejected(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / RECIPE).write_text(json.dumps(asdict(GOOD) | change))
    with pytest.raises(InputError, match=f"{message}.*; calibrate again: |{message}.*, or calibrate again: "):
        read_recipe(tmp_path)


def test_a_recipe_knows_the_cases_it_was_made_with_but_not_by_name() -> None:
    recipe = replace(GOOD, cases=[case_digest("DOE^JOHN", GOOD.slices_digest)])
    assert recipe.overlap_of_cases(["DOE^JOHN", "ROE^JANE"]) == 1
    assert GOOD.overlap_of_cases(["DOE^JOHN"]) == 0
    assert "DOE" not in json.dumps(asdict(recipe))


def test_a_recipe_knows_the_images_it_was_made_with() -> None:
    recipe = replace(GOOD, images=["ab" * 8])
    assert recipe.overlap(["ab" * 32, "cd" * 32]) == 1
    assert GOOD.overlap(["ab" * 32]) == 0


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe.json was not found; calibrate again: lsms-rt calibrate"):
        read_recipe(tmp_path)
    for text, message in (("{", "is not valid JSON"), ("[]", "is not a recipe"), ('{"format": 1}', "incomplete")):
        (tmp_path / RECIPE).write_text(text)
        with pytest.raises(InputError, match=message):
            read_recipe(tmp_path)


def test_the_summary_of_a_calibration(tmp_path: Path) -> None:
    pairs = [(answer(i, 0.8), answer(i, 0.796)) for i in range(12)]
    passed = Trial(1, 0.4, 1.0, compared(*pairs), (), ("too few lesions below 10 mm", "too few negative sentences"))
    worse = compared(*[(a, answer(i, 0.7)) for i, (a, _) in enumerate(pairs)])
    failed = Trial(2, 0.9, 9.0, worse, ("too much",), ("of no interest",))
    recipe = replace(GOOD, made_by={"options": {"by": "layer"}}, measured={"held_out": passed.to_dict()})
    units = [unit("a", 1), unit("b", 1)]
    result = SearchResult(units[:1], passed, passed, failed, [failed, passed])
    done = Calibration(recipe, tmp_path, Sensitivity(units, {}, {}), result)
    figures = "on 12 sentences, 0 of 12 lesions newly missed"
    assert done.summary() == [
        f"{tmp_path}: 1 of 2 layers in INT8, 50% of all dense multiply-accumulates; ranges by minmax",
        f"  selected layers, 40.0% of multiply-accumulates: mean Dice 0.8000 -> 0.7960 {figures}",
        f"  largest set that passed, 40.0% of multiply-accumulates: mean Dice 0.8000 -> 0.7960 {figures}",
        f"  all layers, 90.0% of multiply-accumulates: mean Dice 0.8000 -> 0.7000 {figures}",
        "    too much",
        "  not checked: too few lesions below 10 mm",
        "  not checked: too few negative sentences",
        f"see {tmp_path / 'layers.png'}; next: lsms-rt build-engine --precision int8 --calibration {tmp_path}",
        "  with the same --checkpoint, and with --dataset for the accuracy gate",
    ]
    assert done.to_dict().keys() == {"recipe", "digest", "macs_share", "method", "held_out"}
