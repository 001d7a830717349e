"""``lsms-rt calibrate``: an fp32 engine and a data set in, a recipe for INT8 engines out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.atomic import write_text
from lsms_rt.datasets.choose import choose, record, some
from lsms_rt.datasets.questions import check_pictures, questions
from lsms_rt.datasets.refhl import Annotation, in_split, read_annotations
from lsms_rt.digest import sha256_of_json
from lsms_rt.engine.manifest import REBUILD, EngineDirectory, open_directory
from lsms_rt.engine.registry import find_backend
from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.export.graph.layers import dense_layers, dense_macs

from .compare import unchecked
from .options import METHODS, CalibrateOptions
from .pictures import layers_picture
from .ranges import BINS, ENTROPY_LEVELS, PERCENTILE, measure_ranges
from .recipe import DIGITS, RECIPE, Recipe
from .search import Found, Search
from .sensitivity import DECIDING, Effect, Probe, least_noise, measure_effects
from .trial import Trials
from .units import GRAPHS, Ranges, Unit, merged, units_of

SLICES, LAYERS_PICTURE = "slices.json", "layers.png"
AUTO = ("minmax", "percentile")  # entropy clips most and was the worst of the three (bench/results/cpu/int8.json)


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration: the recipe, the measurements behind it, and the options it was made with."""

    recipe: Recipe
    units: list[Unit]
    effects: dict[str, Effect]
    found: Found
    options: CalibrateOptions

    def summary(self) -> list[str]:
        """Return lines of text: which layers are INT8, and what three sets of layers cost in accuracy."""
        found = self.found
        lines = [
            f"{len(found.chosen)} of {len(self.units)} {self.options.by}s in INT8, {self.recipe.macs_share:.0%} of the "
            f"dense multiply-accumulates; ranges by {self.recipe.method}"
        ]
        for name, trial in (
            ("these layers", found.best), ("the largest set that passed", found.largest),
            ("all layers", found.everything),
        ):  # fmt: skip
            dice = trial.comparison.dice
            if dice is not None:
                scores = f"mean Dice {dice.reference:.4f} -> {dice.engine:.4f}, {dice.n} sentences"
                lines.append(f"  {name}, {trial.share:.1%}: {scores}")
            lines += [f"    {reason}" for reason in trial.failures]
        return lines + [f"  not checked: {point}" for point in unchecked(found.best.comparison)]


def calibrate(
    engine: Path, dataset: Path, output: Path, options: CalibrateOptions, say: Callable[[str], None] = lambda _: None
) -> Calibrated:
    """Write ``recipe.json`` and what led to it into ``output``.

    Ranges and effects that ``output`` holds already, of the same engine, rows and method, are used again.
    Raises :class:`InputError` for options or a data set that cannot be used, :class:`EngineInvalidError` for an engine
    that is no fp32 engine of ONNX Runtime, and where no set of layers that was tried stays within the budget.
    """
    trials = _trials(engine, options.threads)
    everything = read_annotations(dataset)
    rows, held_out_rows = (in_split(dataset, everything, split) for split in (options.split, options.held_out_split))
    check_pictures(dataset, everything)
    check_output(output)
    output.mkdir(parents=True, exist_ok=True)

    (output / RECIPE).unlink(missing_ok=True)  # an old one must not outlive a run that finds nothing
    chosen = choose(rows, options.slices, options.seed)
    slices = {"seed": options.seed, "split": options.split, "rows": record(chosen)}
    _write(output / SLICES, slices)
    slices_digest = sha256_of_json(slices)
    units = units_of(trials.graphs, options.by)
    methods = AUTO if options.method == "auto" else (options.method,)
    ranges = {method: ranges_of(trials, chosen, method, output) for method in methods}

    probe_rows = choose(held_out_rows, options.probe, options.seed)
    key = _key(trials.engine, ranges, record(probe_rows), options.by, DECIDING)
    cache = output / f"effects-{key[:12]}.json"
    effects = measure_effects(Probe(trials, list(questions(probe_rows))), units, ranges, cache)
    best = least_noise(effects)

    say("searching for the largest set of INT8 layers")
    total = sum(dense_macs(graph) for graph in trials.graphs.values())
    of_unit = {unit.key: unit.of(ranges[best[unit.key].method]) for unit in units}
    held_out = some(held_out_rows, options.held_out, options.seed)
    search = Search(trials, units, best, of_unit, held_out, total, say)
    found = search.run(options.max_dice_drop, options.margin)
    _write(output / "trials.json", [trial.to_dict() for trial in search.tried])
    if found is None:
        raise EngineInvalidError(
            f"no set of layers stays within --max-dice-drop {options.max_dice_drop}, not even the one with least noise "
            f"(see {output / 'trials.json'}): take --precision fp16, or a larger budget if you can answer for it"
        )
    looked_at = {row["image_sha256"] for row in record([*chosen, *probe_rows, *held_out])}
    recipe = _recipe(trials, best, found, of_unit, slices_digest, looked_at, options)
    _write(output / RECIPE, asdict(recipe))
    picture = layers_picture(units, best, {unit.key for unit in found.chosen}, found.trials)
    (output / LAYERS_PICTURE).write_bytes(picture)
    return Calibrated(recipe, units, best, found, options)


def check_output(output: Path) -> None:
    """Raise :class:`InputError` for a folder that holds something else: calibrating writes a dozen files."""
    names = [path.name for path in output.iterdir()] if output.exists() else []
    if SLICES not in names and not all(name.startswith("fp32-") for name in names):
        raise InputError(f"{output} exists and is no calibration; give a new folder with -o")


def _trials(engine: Path, threads: int | None) -> Trials:
    """Of an engine whose layers can be made INT8."""
    directory = open_directory(engine)
    manifest = directory.manifest
    plans = find_backend(manifest.backend, str(engine)).builds_plans
    if plans or (manifest.precision, manifest.kernels) != ("fp32", "stock"):
        raise EngineInvalidError(
            f"{engine} is an engine of {manifest.backend} in {manifest.precision} with {manifest.kernels} operations; "
            "calibrate one of onnxruntime in fp32, or a checkpoint"
        )
    trials = Trials(directory, threads)
    first = dense_layers(trials.graphs["image"])[0].name
    if first.startswith("node_"):
        raise EngineInvalidError(
            f"{engine} was built before layers had names ({first} ...), which a recipe goes by; {REBUILD}"
        )
    return trials


def ranges_of(trials: Trials, chosen: list[Annotation], method: str, output: Path) -> Ranges:
    """Of all layers by ``method``: from the cache in ``output``, where it is of this engine and these slices, or
    measured."""
    from tqdm import tqdm

    key = _key(trials.engine, record(chosen), method, PERCENTILE, BINS, ENTROPY_LEVELS)
    cache = output / f"ranges-{method}.json"
    if cache.exists():
        kept = json.loads(cache.read_text())
        if kept.get("key") == key:
            return dict(kept["ranges"])
    ranges: Ranges = {}
    for name in GRAPHS:
        graph = trials.graphs[name]
        with tqdm(total=len(chosen), desc=f"ranges of the {name} graph, {method}", unit="row", disable=None) as bar:
            feeds = trials.feeds(chosen, name)
            ranges[name] = measure_ranges(graph, dense_layers(graph), feeds, method, bar.update)
    _write(cache, {"key": key, "method": method, "ranges": ranges})
    return ranges


def _recipe(
    trials: Trials,
    effects: dict[str, Effect],
    found: Found,
    ranges: dict[str, dict[str, float]],
    slices_digest: str,
    images: set[str],
    options: CalibrateOptions,
) -> Recipe:
    from onnxruntime import __version__ as version

    manifest = trials.engine.manifest
    layers = merged(found.chosen, ranges)
    methods = [effects[unit.key].method for unit in found.chosen]
    used = ", ".join(f"{method} {methods.count(method)}" for method in METHODS if method in methods)
    return Recipe(
        weights_digest=manifest.weights_digest,
        preset=manifest.preset,
        image_size=manifest.image_size,
        method=f"{options.method} ({used} {options.by}s)",
        layers=layers,
        kept={
            name: [layer.name for layer in dense_layers(trials.graphs[name]) if layer.name not in layers[name]]
            for name in GRAPHS
        },
        macs_share=found.best.share,
        max_dice_drop=options.max_dice_drop,
        slices_digest=slices_digest,
        images=sorted(image[:DIGITS] for image in images),
        measured={
            "held_out": found.best.to_dict(),
            "largest_that_passed": found.largest.to_dict(),
            "all_layers_int8": found.everything.to_dict(),
        },
        made_by={"lsms_rt": lsms_rt.__version__, "onnxruntime": version, "options": asdict(options)},
    )


def _key(engine: EngineDirectory, *parts: Any) -> str:
    """Of a cache: all that decides what was measured.  The manifest holds the digests of the graphs."""
    from onnxruntime import __version__ as version

    return sha256_of_json([engine.digest, version, lsms_rt.__version__, parts])


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
