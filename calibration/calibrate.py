"""``lsms-rt calibrate``: find the layers of an fp32 engine that can be INT8, and write them as a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.atomic import atomic_file
from lsms_rt.datasets.choose import Rows, record, select_rows
from lsms_rt.digest import sha256
from lsms_rt.errors import EngineInvalidError, InputError, chain_cut

from .candidate import Candidates, open_candidates
from .options import METHODS, CalibrateOptions
from .pictures import layers_picture
from .ranges import ranges_of
from .recipe import GRAPHS, IMAGE_DIGITS, RECIPE, Recipe, case_digest, write_json
from .search import Search, SearchResult
from .sensitivity import Sensitivity, measure_sensitivity, ranges_of_units

SLICES = "slices.json"
PICTURE = "layers.png"
# "auto" leaves out entropy, which clips most and was the worst of the three (bench/results/cpu/int8.json).
AUTO = ("minmax", "percentile")


@dataclass(frozen=True)
class Calibration:
    """A finished calibration.

    Attributes:
        recipe: the recipe, as written.
        output: the folder with the recipe, its picture and all measurements.
        sensitivity: all units of the search, and the effect of each.
        search: the trials and the selected units.
    """

    recipe: Recipe
    output: Path
    sensitivity: Sensitivity
    search: SearchResult

    def summary(self) -> list[str]:
        """Describe the result in a few lines of text, including the next command to run."""
        recipe, search, units = self.recipe, self.search, self.sensitivity.units
        by = recipe.made_by["options"]["by"]
        lines = [
            f"{self.output}: {len(search.units)} of {len(units)} {by}s in INT8, {recipe.macs_share:.0%} of all "
            f"dense multiply-accumulates; ranges by {recipe.method}"
        ]
        for name, trial in (
            (f"selected {by}s", search.selected),
            ("largest set that passed", search.largest),
            (f"all {by}s", search.all_units),
        ):
            dice = trial.comparison.dice
            if dice is not None:
                found = trial.comparison.found
                figures = (
                    f"mean Dice {dice.reference:.4f} -> {dice.engine:.4f} on {dice.n} sentences, {found.newly_missed} "
                    f"of {found.n} lesions newly missed"
                )
                lines.append(f"  {name}, {trial.share:.1%} of multiply-accumulates: {figures}")
            lines += [f"    {failure}" for failure in trial.failures]
        lines += [f"  not checked: {point}" for point in search.selected.unchecked]
        return [
            *lines,
            f"see {self.output / PICTURE}; next: lsms-rt build-engine --precision int8 --calibration {self.output}",
            "  with the same --checkpoint, and with --dataset for the accuracy gate",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain types: what ``lsms-rt calibrate --json`` prints."""
        recipe = self.recipe
        return {
            "recipe": str(self.output), "digest": recipe.digest, "macs_share": recipe.macs_share,
            "method": recipe.method, **recipe.measured,
        }  # fmt: skip


@chain_cut
def calibrate(
    engine: Path,
    dataset: Path,
    output: Path,
    options: CalibrateOptions,
    status: Callable[[str], None] = lambda _: None,
    digest: str | None = None,
) -> Calibration:
    """Search for the INT8 layers of an engine, and write ``recipe.json`` with all measurements into ``output``.

    Ranges and effects that are in ``output`` already, of the same engine, rows and method, are used again.

    Args:
        engine: an fp32 engine of ONNX Runtime.
        dataset: a data set in the RefHL-Seg layout.
        output: a new folder, or one of an earlier calibration.
        options: what to measure on, and the accuracy budget.
        status: called with one line about the progress.
        digest: "sha256:HEX" of ``engine`` from a trusted source; another engine is rejected.  None: no check.

    Raises:
        InputError: the data set or the output folder cannot be used.
        EngineInvalidError: ``engine`` is not an fp32 engine of ONNX Runtime, or no set of layers stays within the
            budget.
    """
    check_output(output)
    candidates = open_candidates(engine, options.threads, digest)
    rows = select_rows(
        dataset, options.split, options.held_out_split, options.slices, options.probe, options.held_out, options.seed
    )
    slices_digest = _begin(output, rows, options)

    methods = AUTO if options.method == "auto" else (options.method,)
    by_method = {method: ranges_of(candidates, rows.calibration, method, output) for method in methods}
    sensitivity = measure_sensitivity(candidates, by_method, rows.probe, options.by, output)

    status("searching for the largest set of INT8 layers")
    search = Search(candidates, sensitivity, rows.held_out, status)
    result = search.run(options.max_dice_drop, options.margin)
    write_json(output / "trials.json", [trial.to_dict() for trial in search.trials])
    if result is None:
        raise EngineInvalidError(
            f"no set of layers stays within --max-dice-drop {options.max_dice_drop}, not even the layer with the least "
            f"noise (see {output / 'trials.json'}); build with --precision fp16, or calibrate with a larger "
            "--max-dice-drop if a larger loss is acceptable"
        )
    recipe = _recipe(candidates, sensitivity, result, rows, slices_digest, options)
    write_json(output / RECIPE, asdict(recipe))
    selected = {unit.key for unit in result.units}
    with atomic_file(output / PICTURE) as part:
        part.write_bytes(layers_picture(sensitivity.units, sensitivity.effects, selected, result.trials))
    return Calibration(recipe, output, sensitivity, result)


def check_output(output: Path) -> None:
    """Check that ``output`` is new or a calibration folder, because a calibration writes a dozen files.

    Raises:
        InputError: the folder holds something else.
    """
    names = [path.name for path in output.iterdir()] if output.exists() else []
    if SLICES not in names and not all(name.startswith("fp32-") for name in names):
        raise InputError(f"{output} exists and is not a calibration folder; choose a new folder with -o")


def _begin(output: Path, rows: Rows, options: CalibrateOptions) -> str:
    """Prepare the output folder, and return the digest of the record of the calibration rows."""
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    # An old recipe must not outlive a run that finds no layers.
    (output / RECIPE).unlink(missing_ok=True)
    slices = {"seed": options.seed, "split": options.split, "rows": record(rows.calibration)}
    write_json(output / SLICES, slices)
    return sha256(json.dumps(slices, sort_keys=True).encode())


def _recipe(
    candidates: Candidates,
    sensitivity: Sensitivity,
    result: SearchResult,
    rows: Rows,
    slices_digest: str,
    options: CalibrateOptions,
) -> Recipe:
    from onnxruntime import __version__ as version

    manifest = candidates.engine.manifest
    layers = ranges_of_units(result.units, sensitivity.ranges)
    methods = [sensitivity.effects[unit.key].method for unit in result.units]
    counts = ", ".join(f"{method} {methods.count(method)}" for method in METHODS if method in methods)
    used = [*rows.calibration, *rows.probe, *rows.held_out]
    images = {row["image_sha256"] for row in record(used)}
    return Recipe(
        weights_digest=manifest.weights_digest,
        preset=manifest.preset,
        image_size=manifest.image_size,
        method=f"{options.method} ({counts} {options.by}s)",
        layers=layers,
        kept={
            name: [layer.name for layer in candidates.layers[name] if layer.name not in layers[name]] for name in GRAPHS
        },
        macs_share=result.selected.share,
        max_dice_drop=options.max_dice_drop,
        slices_digest=slices_digest,
        images=sorted(image[:IMAGE_DIGITS] for image in images),
        cases=sorted({case_digest(row.case_id, slices_digest) for row in used}),
        measured={
            "candidate_sets": len(result.trials),
            "held_out": result.selected.to_dict(),
            "largest_that_passed": result.largest.to_dict(),
            "all_layers_int8": result.all_units.to_dict(),
        },
        made_by={"lsms_rt": lsms_rt.__version__, "onnxruntime": version, "options": asdict(options)},
    )
