"""The recipe of an INT8 engine: which layers are INT8, the ranges of their inputs, and how they were chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lsms_rt.atomic import write_text
from lsms_rt.digest import sha256
from lsms_rt.errors import InputError

RECIPE = "recipe.json"
GRAPHS = ("text", "image")
# Digits of an image's SHA-256 that a recipe keeps.
IMAGE_DIGITS = 16
FORMAT = 1
AGAIN = "calibrate again: lsms-rt calibrate ENGINE-or-CHECKPOINT DATASET -o DIR"
# Graph name -> layer name -> largest magnitude of the layer's input.
Ranges = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What ``lsms-rt calibrate`` writes, and ``lsms-rt build-engine --calibration`` reads.

    Attributes:
        weights_digest: SHA-256 of the weights that were calibrated.
        preset: their preset.
        image_size: side of the model's input in pixels.
        method: the calibration method, in words.
        layers: graph name -> INT8 layer -> largest magnitude of its input.
        kept: graph name -> layers that stay in floating point.
        macs_share: part of all dense multiply-accumulates of a slice that is INT8, 0 to 1.
        max_dice_drop: the budget of the search.
        slices_digest: SHA-256 of the record of the rows that ranges were measured on.
        images: SHA-256 (its first 16 digits) of all images that were used; a gate must not ask about them.
        cases: digests of the ids of all cases that were used (``case_digest``); a gate must not ask about them either.
        measured: the trials on held-out rows, and how many candidate sets were judged on them.
        made_by: versions and options.
        format: version of the file format.
    """

    weights_digest: str
    preset: str
    image_size: int
    method: str
    layers: Ranges
    kept: dict[str, list[str]]
    macs_share: float
    max_dice_drop: float
    slices_digest: str
    images: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the engine: the layers and their ranges."""
        return sha256(json.dumps(self.layers, sort_keys=True).encode())

    def check(self, weights_digest: str, image_size: int) -> None:
        """Check that the recipe was made for these weights and this input size.

        Raises:
            InputError: it was made for others.
        """
        if self.weights_digest != weights_digest:
            raise InputError(
                f"the calibration is for weights {self.weights_digest[:12]}..., but the checkpoint's are "
                f"{weights_digest[:12]}...; ranges hold only for the weights they were measured with: {AGAIN}"
            )
        if self.image_size != image_size:
            raise InputError(
                f"the calibration is for {self.image_size}x{self.image_size}, but the engine would be "
                f"{image_size}x{image_size}; use --image-size {self.image_size}, or {AGAIN}"
            )

    def overlap(self, images: Iterable[str]) -> int:
        """Count the ``images``, given by their SHA-256, that the recipe was made with."""
        used = set(map(str, self.images))
        return sum(image[:IMAGE_DIGITS] in used for image in images)

    def overlap_of_cases(self, case_ids: Iterable[str]) -> int:
        """Count the cases, given by their ids, that the recipe was made with: the same patients, encoded otherwise."""
        known = set(map(str, self.cases))
        return sum(case_digest(case_id, self.slices_digest) in known for case_id in case_ids)


def case_digest(case_id: str, salt: str) -> str:
    """Return a short digest of a case's id, which may be a patient's name; ``salt`` is the recipe's slices_digest."""
    return sha256(f"{salt} {case_id}".encode())[:IMAGE_DIGITS]


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the recipe file, or the folder that ``lsms-rt calibrate`` wrote.

    Raises:
        InputError: there is no recipe, or it is not valid.
    """
    file = path / RECIPE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: {RECIPE} was not found; {AGAIN}")
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); {AGAIN}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise InputError(f"{file} is not a recipe: its format version is missing; {AGAIN}")
    if values["format"] > FORMAT:
        raise InputError(
            f"{file} has format {values['format']}, but this version of lsms-rt reads up to {FORMAT}; "
            f"update lsms-rt, or {AGAIN}"
        )
    try:
        recipe = Recipe(**{name: value for name, value in values.items() if name in {f.name for f in fields(Recipe)}})
    except TypeError as error:
        raise InputError(f"{file} is incomplete ({error}); {AGAIN}") from error
    _check(file, recipe)
    return recipe


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def _check(file: Path, recipe: Recipe) -> None:
    """Validate the recipe."""
    if not isinstance(recipe.layers, dict) or not set(recipe.layers) <= set(GRAPHS):
        raise InputError(f"{file}: layers must belong to the graphs {' and '.join(GRAPHS)}; {AGAIN}")
    for graph, layers in recipe.layers.items():
        if not isinstance(layers, dict):
            raise InputError(f"{file}: the layers of {graph} must map names to ranges; {AGAIN}")
        for name, limit in layers.items():
            is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if not is_number or not 0 < limit < math.inf:
                raise InputError(f"{file}: layer {name} has range {limit!r}, not a positive number; {AGAIN}")
    if not any(recipe.layers.values()):
        raise InputError(f"{file} has no INT8 layers; {AGAIN}")
    types = {
        "weights_digest": str,
        "image_size": int,
        "method": str,
        "slices_digest": str,
        "images": list,
        "cases": list,
    }
    for name, type_ in types.items():
        value = getattr(recipe, name)
        if not isinstance(value, type_):
            raise InputError(f"{file}: {name} is {value!r}, not of type {type_.__name__}; {AGAIN}")
