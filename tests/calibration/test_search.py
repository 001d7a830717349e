"""Units, their effects, and the search for INT8 layers; engines are fakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_answers import FakeCandidates, answer, unit

from lsms_rt.calibration import ranges as ranges_module
from lsms_rt.calibration.calibrate import CalibrateOptions
from lsms_rt.calibration.candidate import Run
from lsms_rt.calibration.ranges import ranges_of
from lsms_rt.calibration.search import Search, SearchResult
from lsms_rt.calibration.sensitivity import (
    Effect,
    Sensitivity,
    best_ranges,
    group_of,
    measure_effects,
    min_noise,
    ranges_of_units,
    units_of,
)
from lsms_rt.errors import InputError

# Units


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


def test_units_are_layers_or_groups() -> None:
    layers = FakeCandidates(dict.fromkeys(("decoder.a.x", "decoder.a.y", "decoder.b"), 0.0)).layers
    assert [u.key for u in units_of(layers, "layer")] == ["image:decoder.a.x", "image:decoder.a.y", "image:decoder.b"]
    assert [(u.key, u.macs) for u in units_of(layers, "group")] == [("image:decoder.a", 2), ("image:decoder.b", 1)]


def test_ranges_of_units() -> None:
    units = [unit("a", 1), unit("b", 1, "text")]
    ranges = {"text": {"b": 2.0, "c": 3.0}, "image": {"a": 1.0, "d": 4.0}}
    assert ranges_of_units(units, ranges) == {"text": {"b": 2.0}, "image": {"a": 1.0}}


def test_every_unit_gets_the_method_with_less_noise() -> None:
    effects = [
        Effect("image:a", "minmax", 2.0, 30, 0),
        Effect("image:a", "percentile", 1.0, 20, 0),
        Effect("text:b", "minmax", 1.0, 30, 0),
        Effect("text:b", "percentile", 2.0, 30, 0),
    ]
    best = min_noise(effects)
    assert {key: effect.method for key, effect in best.items()} == {"image:a": "percentile", "text:b": "minmax"}
    ranges = {
        "minmax": {"text": {"b": 1.0}, "image": {"a": 2.0}},
        "percentile": {"text": {"b": 3.0}, "image": {"a": 4.0}},
    }
    chosen = best_ranges([unit("a", 1), unit("b", 1, "text")], best, ranges)
    assert chosen == {"text": {"b": 1.0}, "image": {"a": 4.0}}


# Measurements are cached: an interrupted calibration resumes


def test_effects_resume_and_repeat(tmp_path: Path) -> None:
    """Effects in the cache are not measured again, and missing ones get the same values as in one run."""
    harm = {"a": 0.1, "b": 0.2, "c": 0.3}
    units = [unit(name, 1) for name in harm]
    ranges = {method: {"text": {}, "image": dict.fromkeys(harm, 1.0)} for method in ("minmax", "percentile")}
    candidates = FakeCandidates(harm)
    effects = measure_effects(candidates, units, ranges, [], "layer", tmp_path)
    # The unchanged engine first, then every unit with both methods.
    assert candidates.evaluated == [frozenset(), *(frozenset(name) for name in "aabbcc")]
    (cache,) = tmp_path.iterdir()
    text = cache.read_text()
    # As if the run had been interrupted after the first unit.
    cache.write_text(json.dumps(json.loads(text)[:2]))
    again = FakeCandidates(harm)
    assert measure_effects(again, units, ranges, [], "layer", tmp_path) == effects
    assert again.evaluated == [frozenset(), *(frozenset(name) for name in "bbcc")]
    assert cache.read_text() == text
    # Other ranges are another measurement.
    ranges["minmax"]["image"]["a"] = 2.0
    other = FakeCandidates(harm)
    measure_effects(other, units, ranges, [], "layer", tmp_path)
    assert len(other.evaluated) == 7
    assert len(list(tmp_path.iterdir())) == 2


def test_ranges_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(model, layers, feeds, method, progress):  # type: ignore[no-untyped-def]
        measured.append(method)
        return {layer.name: 1.5 for layer in layers}

    monkeypatch.setattr(ranges_module, "measure_ranges", measure)
    candidates = FakeCandidates({"a": 0.0})
    found = ranges_of(candidates, [], "minmax", tmp_path)
    assert found == {"text": {}, "image": {"a": 1.5}}
    # There is one run per graph.
    assert measured == ["minmax", "minmax"]
    assert ranges_of(candidates, [], "minmax", tmp_path) == found
    assert len(measured) == 2
    # A cache of another engine, or of other rows, is not used.
    file = tmp_path / "ranges-minmax.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"key": "another"}))
    ranges_of(candidates, [], "minmax", tmp_path)
    assert len(measured) == 4


# The search


def search(
    harm: dict[str, float], macs: dict[str, int], noise: dict[str, float], budget: float, margin: float
) -> tuple[SearchResult | None, FakeCandidates]:
    units = [unit(name, macs[name]) for name in harm]
    effects = {u.key: Effect(u.key, "minmax", noise[u.name], 0, 0) for u in units}
    ranges = {"text": {}, "image": dict.fromkeys(harm, 1.0)}
    candidates = FakeCandidates(harm, 2 * sum(macs.values()))
    return Search(candidates, Sensitivity(units, effects, ranges), []).run(budget, margin), candidates


def names(result: SearchResult | None) -> str:
    assert result is not None
    return "".join(sorted(u.name for u in result.units))


def test_all_layers_if_all_pass() -> None:
    harm = dict.fromkeys("abcd", 0.001)
    result, candidates = search(harm, dict.fromkeys(harm, 10), dict.fromkeys(harm, 1.0), 0.005, margin=1)
    assert names(result) == "abcd"
    assert result is not None and result.selected.share == 0.5
    assert [line[:60] for line in result.selected.unchecked] == [
        "the reference finds 0 lesions below 10 mm: too few to exclud",
        "the reference's mask is empty for 0 negative sentences: too ",
    ]
    # The unchanged engine is evaluated first.
    assert candidates.evaluated == [frozenset(), frozenset("abcd")]


@pytest.mark.parametrize(("margin", "selected"), [(1, "abcde"), (1.7, "abce"), (2, "abc"), (4, "ab"), (1000, "a")])
def test_the_largest_set_that_passes_and_its_margin(margin: float, selected: str) -> None:
    """In order of noise per multiply-accumulate: a b c d e f.  f exceeds the budget; d is noisy for its work."""
    harm = dict.fromkeys("abcde", 0.0005) | {"f": 0.1}
    macs = {"a": 100, "b": 100, "c": 100, "d": 10, "e": 20, "f": 10}
    noise = {"a": 0.01, "b": 1.0, "c": 2.0, "d": 5.0, "e": 4.0, "f": 9.0}
    result, candidates = search(harm, macs, noise, 0.005, margin)
    assert names(result) == selected
    assert result is not None
    assert result.all_units.failures and not result.selected.failures
    assert result.largest.noise == pytest.approx(12.01)
    assert result.largest.units == 5
    assert result.selected.noise <= result.largest.noise / margin
    assert len(candidates.evaluated) <= 6
    assert search(harm, macs, noise, 0.005, margin)[0] == result


def test_a_margin_that_does_not_pass_is_widened() -> None:
    """Whether a set passes is measured, whatever its noise: here a alone loses accuracy, and b compensates it."""
    harm = {"a": 0.1, "b": -0.1, "c": 0.0}
    macs, noise = {"a": 30, "b": 20, "c": 1}, {"a": 1.0, "b": 2.0, "c": 0.1}
    result, _ = search(harm, macs, noise, 0.005, margin=2)
    assert names(result) == "c"
    assert result is not None and not result.selected.failures


def test_no_set_passes() -> None:
    harm = {"a": 0.1, "b": 0.2}
    assert search(harm, {"a": 1, "b": 1}, {"a": 1.0, "b": 2.0}, 0.005, margin=4)[0] is None


@pytest.mark.parametrize(
    ("dice", "count", "reason"), [(0.02, 12, "mean Dice of 0.020"), (0.8, 3, "only 3 positive sentences")]
)
def test_held_out_rows_that_cannot_judge_are_rejected(dice: float, count: int, reason: str) -> None:
    """A reference that finds nothing loses nothing: every layer would pass."""
    candidates = FakeCandidates({})
    runs = [Run(answer(i, dice), {}, np.zeros((1, 1, 1))) for i in range(count)]
    candidates.run = lambda *_: iter(runs)  # type: ignore[method-assign]
    effects = {"image:a": Effect("image:a", "minmax", 1.0, 0, 0)}
    with pytest.raises(InputError, match=f"not enough data to judge INT8: .*{reason}"):
        Search(candidates, Sensitivity([unit("a", 1)], effects, {"image": {"a": 1.0}}), []).run(0.005, 4)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_dice_drop": 2}, "--max-dice-drop 2; give more than 0, up to 1"),
        ({"max_dice_drop": 0}, "--max-dice-drop 0; give more than 0, up to 1"),
        ({"margin": 0.5}, "--margin 0.5; give 1"),
        ({"method": "guess"}, "--method guess; choose from auto, minmax, percentile, entropy"),
        ({"by": "block"}, "--by block; choose from layer, group"),
        ({"split": "val"}, "--split and --held-out-split are both 'val'"),
        ({"held_out": 0}, "--held-out 0; give at least 1"),
    ],
)
def test_options_are_checked_when_they_are_made(option: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CalibrateOptions(**option)  # type: ignore[arg-type]
