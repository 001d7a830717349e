"""The choice of slices, the comparison of answers, the search's bookkeeping and the recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from fake_answers import answer, compared, unit
from PIL import Image

from lsms_rt.calibration.compare import failures, may_be_painted, unchecked, unjudged
from lsms_rt.calibration.recipe import RECIPE, Recipe, read_recipe
from lsms_rt.calibration.search import Search
from lsms_rt.calibration.sensitivity import Effect, least_noise
from lsms_rt.calibration.trial import Trials
from lsms_rt.calibration.units import group_of, merged
from lsms_rt.datasets.choose import choose, record, stratum
from lsms_rt.datasets.questions import Answer, check_pictures, questions
from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS, read_annotations
from lsms_rt.errors import DatasetError, InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases, lesions of three sizes and none, sentences short and long: 48 rows."""
    folder = tmp_path_factory.mktemp("data")
    rows = [",".join(FIELDS)]
    for size, side in (("none", 0), ("small", 2), ("middle", 4), ("large", 30)):
        mask = np.zeros((100, 100), np.uint8)
        mask[10 : 10 + side, 10 : 10 + side] = 255
        Image.fromarray(mask).save(folder / f"{size}.png")
    for case in range(4):
        np.save(folder / f"{case}.npy", np.full((100, 100), -50 - case, np.int16))
        for size in ("none", "small", "middle", "large"):
            for sentence in (
                "the cyst",
                "the cyst in the left lobe",
                "the small dark cyst in the left lobe of the liver",
            ):
                kind = "" if size == "none" else "cyst"
                rows.append(f"c{case},1,{case}.npy,{size}.png,{sentence},{kind},{'train' if case < 3 else 'val'}")
    (folder / ANNOTATIONS).write_text("\n".join(rows) + "\n")
    return folder


def test_the_choice_has_some_of_every_kind(dataset: Path) -> None:
    rows = read_annotations(dataset, "train")
    chosen = choose(rows, 16, 0)
    strata = [stratum(question) for question in questions(chosen)]
    counts = {key: strata.count(key) for key in strata}
    assert len(counts) == 8 and set(counts.values()) == {2}  # four sizes, two lengths, in turn
    assert len({row.case_id for row in chosen}) == 3
    assert chosen == choose(rows, 16, 0) and chosen != choose(rows, 16, 1)
    assert len(choose(rows, 10_000, 0)) == len(rows) == len(set(choose(rows, 10_000, 0)))


def test_the_record_of_a_choice(dataset: Path) -> None:
    rows = choose(read_annotations(dataset), 5, 0)
    kept = record(rows)
    assert [row["line"] for row in kept] == [row.line for row in rows]
    assert all(len(row["image_sha256"]) == len(row["mask_sha256"]) == len(row["sentence_sha256"]) == 64 for row in kept)
    assert "cyst" not in json.dumps(kept)  # digests, no sentences


# -------------------------------------------------------------------------------------------- bad data sets


def test_every_bad_row_is_named(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "0.npy", tmp_path / "x.npy")
    with (tmp_path / ANNOTATIONS).open("a") as file:
        file.write("c9,1,9.npy,small.png,the cyst,cyst,test\n")  # line 50: no image
        file.write("c8,1,x.npy,nothing.png,the cyst,cyst,test\n")  # no mask
        file.write("c7,1,x.npy,small.png,  ,cyst,test\n")  # no sentence
        file.write("c0,1,x.npy,small.png,the cyst,cyst,test\n")  # a training case
        file.write(",1,x.npy,small.png,the cyst,cyst,test\n")  # no case
    with pytest.raises(DatasetError, match=r"53 rows line 50: image '9.npy'.*and 4 more") as caught:
        read_annotations(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [f"line {n}" for n in range(50, 55)]
    said = " | ".join(caught.value.problems)
    for part in (
        "mask 'nothing.png'",
        "sentence is empty",
        "in split 'test' here and in 'train' in line 2",
        "case_id is",
    ):
        assert part in said
    assert "\n" not in str(caught.value)


def test_pictures_that_do_not_fit_are_named(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "2.npy").write_bytes(b"no array")
    rows = read_annotations(tmp_path)
    with pytest.raises(DatasetError) as caught:
        check_pictures(tmp_path, rows)
    assert len(caught.value.problems) == 3 * 3 + 12  # the small masks of three cases, all of the third case
    assert "line 5: the mask is (50, 100), the image (100, 100)" in caught.value.problems[0]
    check_pictures(dataset, read_annotations(dataset))


# -------------------------------------------------------------------------------------------- comparison


def test_comparison_by_hand() -> None:
    true = [(answer(i, 0.8, area=100), answer(i, 0.7, area=90)) for i in range(4)]
    small = [(answer(4, 0.5, mm=6, area=20), answer(4, 0.1, mm=6, area=30))]
    empty = answer(5, 1.0, wanted=False, painted=False)
    false = [(empty, empty), (empty, answer(5, 0.0, wanted=False)), (answer(5, 0.0, wanted=False), empty)]
    c = compared(*true, *small, *false)
    assert c.dice is not None and c.small is not None and c.emptiness is not None and c.area is not None
    assert (c.cases, c.sentences, c.dice.n, c.small.n) == (6, 8, 5, 1)
    assert c.dice.reference == pytest.approx(0.74) and c.dice.drop == pytest.approx((0.1 * 4 + 0.4) / 5)
    assert c.small.drop == pytest.approx(0.4)
    e = c.emptiness
    assert (e.n, e.reference, e.engine, e.newly_painted, e.newly_empty) == (3, 2, 2, 1, 1)
    differences = np.array([-10, -10, -10, -10, 10, 50, -50])  # and neither painted: not counted
    assert (c.area.n, c.area.bias) == (7, pytest.approx(differences.mean()))
    assert c.area.high - c.area.bias == pytest.approx(1.96 * differences.std(ddof=1))
    assert c.dice_drop_interval is not None
    assert c.dice_drop_interval[0] <= c.dice.drop <= c.dice_drop_interval[1]
    assert c.missed_reference == c.missed_engine == 0
    assert json.loads(json.dumps(c.to_dict()))["dice"]["drop"] == pytest.approx(c.dice.drop)


def test_what_a_gate_refuses() -> None:
    def said(*pairs: tuple[Answer, Answer]) -> list[str]:
        return failures(compared(*pairs), 0.01)

    good = [(answer(i, 0.8), answer(i, 0.795)) for i in range(50)]
    assert said(*good) == []
    worse = [(answer(i, 0.8), answer(i, 0.78)) for i in range(50)]
    assert (
        len(said(*worse)) == 1 and "mean Dice drops from 0.8000 to 0.7800, by 0.0200 (at most 0.0100" in said(*worse)[0]
    )
    # Small lesions may lose twice as much, and no more, however well the rest does.
    for loss, count in ((0.019, 0), (0.021, 1)):
        small = [(answer(60, 0.5, mm=8), answer(60, 0.5 - loss, mm=8))]
        assert len(said(*good, *small)) == count
    empty = answer(70, 1.0, wanted=False, painted=False)
    painted = answer(70, 0.0, wanted=False)
    some = [(empty, empty)] * 98
    assert said(*good, *some, (empty, painted)) == []  # one in 99, and 0.01 rounded up
    (why,) = said(*good, *some, (empty, painted), (empty, painted))
    assert "2 of 100 sentences true of nothing" in why and "at most 1, 1.0% rounded up" in why
    # That others are newly silent makes up for nothing.
    assert len(said(*good, *some, *[(empty, painted)] * 2, *[(painted, empty)] * 9)) == 1
    assert [may_be_painted(n, 0.005) for n in (0, 1, 200, 201, 400)] == [0, 1, 1, 2, 2]
    assert may_be_painted(1000, 0.0) == 0
    nan = [(answer(1, 0.8), answer(1, float("nan")))]
    assert said(*nan)


def test_what_could_not_be_looked_at_is_said() -> None:
    """Without spacing no lesion is known to be small; without false sentences nobody watches silence."""
    known = [(answer(i, 0.8, mm=8), answer(i, 0.8, mm=8)) for i in range(12)]
    empty = answer(70, 1.0, wanted=False, painted=False)
    assert unchecked(compared(*known, *[(empty, empty)] * 10)) == []
    assert "0 sentences true of nothing" in " ".join(unchecked(compared(*known)))
    large = [(answer(i, 0.8), answer(i, 0.8)) for i in range(12)]
    assert "no lesion is below 10 mm" in unchecked(compared(*large))
    blind = [(replace(a, diameter_mm=None), replace(b, diameter_mm=None)) for a, b in known]
    assert "size of 12 lesions is unknown" in unchecked(compared(*blind))[0]
    assert unjudged(compared(*known)) == ""
    assert "only 9 sentences" in unjudged(compared(*known[:9]))


def test_better_everywhere_passes() -> None:
    assert failures(compared(*[(answer(i, 0.5), answer(i, 0.9)) for i in range(3)]), 0.0) == []


# -------------------------------------------------------------------------------------------- units and search


def test_groups() -> None:
    for layer, group in {
        "encoder.stages.0.blocks.1.mlp.expand": "encoder.stages.0.blocks.1.mlp",
        "encoder.stages.0.blocks.1.attention.svla.language.query": "encoder.stages.0.blocks.1.attention",
        "encoder.stages.1.embed.0": "encoder.stages.1.embed",
        "decoder.inside.qkv": "decoder.inside",
        "text_encoder.bert.encoder.layer.1.attention.self.query": "text_encoder.bert.encoder.layer.1",
        "linear_14": "linear",
    }.items():
        assert group_of(layer) == group


def test_the_less_noisy_range_is_taken() -> None:
    effects = [Effect("image:a", "minmax", 2.0, 30, 0), Effect("image:a", "percentile", 1.0, 20, 0)]
    assert least_noise(effects)["image:a"].method == "percentile"


class FakeTrials(Trials):
    """A network whose mean Dice falls by the sum of its INT8 layers' harm."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm, self.asked = harm, list[frozenset[str]]()

    def answers(self, layers, asked, title):  # type: ignore[no-untyped-def,override]
        names = frozenset(name for graph in layers.values() for name in graph)
        self.asked.append(names)
        return [answer(i, 0.8 - sum(self.harm[name] for name in names)) for i in range(12)]


def found_by(harm: dict[str, float], macs: dict[str, int], noise: dict[str, float], budget: float, margin: float):  # type: ignore[no-untyped-def]
    units = [unit(name, macs[name]) for name in harm]
    effects = {u.key: Effect(u.key, "minmax", noise[u.name], 0, 0) for u in units}
    ranges = {u.key: {u.name: 1.0} for u in units}
    trials = FakeTrials(harm)
    return Search(trials, units, effects, ranges, [], 2 * sum(macs.values())).run(budget, margin), trials


def names(found) -> str:  # type: ignore[no-untyped-def]
    return "".join(sorted(u.name for u in found.chosen))


def test_all_layers_where_all_pass() -> None:
    harm = dict.fromkeys("abcd", 0.001)
    found, trials = found_by(harm, dict.fromkeys(harm, 10), dict.fromkeys(harm, 1.0), 0.005, margin=1)
    assert names(found) == "abcd" and found.best.share == 0.5 and len(trials.asked) == 2
    assert trials.asked[0] == frozenset()  # the engine as it is


@pytest.mark.parametrize(("margin", "wanted"), [(1, "abcde"), (1.7, "abce"), (2, "abc"), (4, "ab"), (1000, "a")])
def test_the_largest_set_that_passes_and_its_margin(margin: float, wanted: str) -> None:
    """In order of noise for work: a b c d e f; f does harm.  d is loud for what it does."""
    harm = dict.fromkeys("abcde", 0.0005) | {"f": 0.1}
    macs = {"a": 100, "b": 100, "c": 100, "d": 10, "e": 20, "f": 10}
    noise = {"a": 0.01, "b": 1.0, "c": 2.0, "d": 5.0, "e": 4.0, "f": 9.0}
    found, trials = found_by(harm, macs, noise, 0.005, margin)
    assert names(found) == wanted
    assert found.everything.failures and not found.best.failures
    assert found.largest.noise == pytest.approx(12.01) and found.largest.units == 5
    assert found.best.noise <= found.largest.noise / margin
    assert len(trials.asked) <= 6


def test_a_margin_that_does_not_pass_is_widened() -> None:
    """Whether a set passes is measured, whatever noise says: here a alone does harm, and b makes up for it."""
    harm = {"a": 0.1, "b": -0.1, "c": 0.0}
    macs, noise = {"a": 30, "b": 20, "c": 1}, {"a": 1.0, "b": 2.0, "c": 0.1}
    found, _ = found_by(harm, macs, noise, 0.005, margin=2)
    assert names(found) == "c" and not found.best.failures


def test_nothing_fits() -> None:
    harm = {"a": 0.1, "b": 0.2}
    found, _ = found_by(harm, {"a": 1, "b": 1}, {"a": 1.0, "b": 2.0}, 0.005, margin=4)
    assert found is None


def test_held_out_rows_that_show_nothing_are_refused() -> None:
    """A reference that finds nothing loses nothing: every layer would pass."""

    class Deaf(FakeTrials):
        def answers(self, layers, rows, title):  # type: ignore[no-untyped-def]
            return [answer(i, 0.02) for i in range(12)]

    units = [unit("a", 1)]
    effects = {"image:a": Effect("image:a", "minmax", 1.0, 0, 0)}
    for trials, said in ((Deaf({}), "mean Dice of 0.020"), (FakeTrials({}), "only 3 sentences")):
        if said.startswith("only"):
            trials.answers = lambda *_: [answer(i, 0.8) for i in range(3)]  # type: ignore[method-assign]
        with pytest.raises(InputError, match=f"cannot judge INT8: .*{said}"):
            Search(trials, units, effects, {"image:a": {"a": 1.0}}, [], 10).run(0.005, 4)


def test_merged_ranges() -> None:
    units = [unit("a", 1), unit("b", 1, "text")]
    assert merged(units, {"image:a": {"a": 1.0}, "text:b": {"b": 2.0}}) == {"text": {"b": 2.0}, "image": {"a": 1.0}}


# -------------------------------------------------------------------------------------------- recipe

GOOD = Recipe(
    "ab" * 32, "tiny", 64, "minmax", {"image": {"x": 1.5}, "text": {}}, {"image": ["y"]}, 0.5, 0.005, "cd" * 32
)


def test_a_recipe_comes_back(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text(json.dumps(asdict(GOOD)))
    assert read_recipe(tmp_path) == read_recipe(tmp_path / RECIPE) == GOOD
    GOOD.check("ab" * 32, 64)
    with pytest.raises(InputError, match="for weights abababababab"):
        GOOD.check("cd" * 32, 64)
    with pytest.raises(InputError, match="--image-size 64"):
        GOOD.check("ab" * 32, 128)
    assert GOOD.digest != replace(GOOD, layers={"image": {"x": 1.6}, "text": {}}).digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "format 99"),
        ({"format": None}, "states no format"),
        ({"layers": {"image": {"x": 0}}}, "range 0"),
        ({"layers": {"image": {"x": True}}}, "range True"),
        ({"layers": {"image": {"x": "1"}}}, "range '1'"),
        ({"layers": {"other": {}}}, "text and image"),
        ({"layers": {"image": {}, "text": {}}}, "names no INT8 layer"),
        ({"images": None}, "images is None"),
        ({"layers": {"image": [1]}}, "map names to ranges"),
        ({"image_size": "64"}, "image_size is '64'"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / RECIPE).write_text(json.dumps(asdict(GOOD)))
    values = json.loads((tmp_path / RECIPE).read_text()) | change
    (tmp_path / RECIPE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=said):
        read_recipe(tmp_path)


def test_a_recipe_knows_the_images_it_was_made_with() -> None:
    recipe = replace(GOOD, images=["ab" * 8])
    assert recipe.overlap(["ab" * 32, "cd" * 32]) == 1 and GOOD.overlap(["ab" * 32]) == 0


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe.json; make it again: lsms-rt calibrate"):
        read_recipe(tmp_path)
    for text, said in (("{", "no JSON"), ("[]", "states no format"), ('{"format": 1}', "incomplete")):
        (tmp_path / RECIPE).write_text(text)
        with pytest.raises(InputError, match=said):
            read_recipe(tmp_path)
