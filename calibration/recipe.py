"""The recipe of an INT8 engine: which layers are INT8, how far their inputs reach, and how that was found out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError

RECIPE = "recipe.json"
DIGITS = 16  # of an image's sha256 that a recipe keeps
FORMAT = 1
AGAIN = "make it again: lsms-rt calibrate ENGINE-or-CHECKPOINT DATASET -o DIR"


@dataclass(frozen=True)
class Recipe:
    """What ``lsms-rt calibrate`` writes and ``lsms-rt build-engine --calibration`` takes.

    ``layers``: graph ("text", "image") -> INT8 layer -> the largest magnitude of its input.  ``kept``: graph -> layers
    that stay in floating point.  ``macs_share``: of all dense multiply-accumulates of a slice, how many are INT8.
    ``slices_digest`` is that of the record of chosen rows, ``images`` the sha256 (16 digits) of all images that were
    looked at: a gate must not ask about them.  ``measured`` is what the search saw on held-out rows.
    """

    weights_digest: str
    preset: str
    image_size: int
    method: str
    layers: dict[str, dict[str, float]]
    kept: dict[str, list[str]]
    macs_share: float
    max_dice_drop: float
    slices_digest: str
    images: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Of what decides the engine: layers and their ranges."""
        return sha256_of_json(self.layers)

    def check(self, weights_digest: str, image_size: int) -> None:
        """Raise :class:`InputError` where the recipe was made for other weights or another size."""
        if self.weights_digest != weights_digest:
            raise InputError(
                f"the calibration is for weights {self.weights_digest[:12]}..., the checkpoint's are "
                f"{weights_digest[:12]}...: ranges of other weights mean nothing; {AGAIN}"
            )
        if self.image_size != image_size:
            raise InputError(
                f"the calibration is for {self.image_size}x{self.image_size}, the engine would have "
                f"{image_size}x{image_size}; give --image-size {self.image_size}, or {AGAIN}"
            )

    def overlap(self, images: Iterable[str]) -> int:
        """How many of ``images``, by sha256, this recipe was made with."""
        return sum(image[:DIGITS] in self.images for image in images)


def read_recipe(path: Path) -> Recipe:
    """The recipe in the folder ``path``, or the file itself.  Raises :class:`InputError` for one that is none."""
    file = path / RECIPE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no {RECIPE}; {AGAIN}")
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}); {AGAIN}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise InputError(f"{file} is no recipe: it states no format; {AGAIN}")
    if values["format"] > FORMAT:
        raise InputError(f"{file} has format {values['format']}, this lsms-rt reads up to {FORMAT}; {AGAIN}")
    try:
        recipe = Recipe(**{name: value for name, value in values.items() if name in {f.name for f in fields(Recipe)}})
    except TypeError as error:
        raise InputError(f"{file} is incomplete ({error}); {AGAIN}") from error
    _check(file, recipe)
    return recipe


def _check(file: Path, recipe: Recipe) -> None:
    """Refuse what a graph would be broken with."""
    if not isinstance(recipe.layers, dict) or not set(recipe.layers) <= {"text", "image"}:
        raise InputError(f"{file}: layers must be of the graphs text and image; {AGAIN}")
    for graph, layers in recipe.layers.items():
        if not isinstance(layers, dict):
            raise InputError(f"{file}: the layers of {graph} must map names to ranges; {AGAIN}")
        for name, limit in layers.items():
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if not number or not 0 < limit < math.inf:
                raise InputError(f"{file}: layer {name} has range {limit!r}, not a positive number; {AGAIN}")
    if not any(recipe.layers.values()):
        raise InputError(f"{file} names no INT8 layer; {AGAIN}")
    kinds = {"weights_digest": str, "image_size": int, "method": str, "slices_digest": str, "images": list}
    for name, kind in kinds.items():
        if not isinstance(getattr(recipe, name), kind):
            raise InputError(f"{file}: {name} is {getattr(recipe, name)!r}; {AGAIN}")
