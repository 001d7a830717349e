"""Builds of random weights, whose speed is measured: no data set can judge their accuracy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from lsms_rt.calibration.candidate import open_candidates
from lsms_rt.calibration.options import MAX_DICE_DROP
from lsms_rt.calibration.ranges import measure_ranges
from lsms_rt.calibration.recipe import RECIPE, Recipe, read_recipe, write_json
from lsms_rt.data import demo_calibration
from lsms_rt.digest import sha256
from lsms_rt.engine import open_backend
from lsms_rt.export.options import BuildOptions, GateOptions
from lsms_rt.machine.cpu import find

SLICES, SEED = 2, 0


def unjudged(backend: str, precision: str, checkpoint: Path, fp32: Path | None = None) -> BuildOptions:
    """Return the options of a build that is neither verified nor judged.

    Args:
        backend: As ``build-engine --backend`` names it.
        precision: As ``build-engine --precision`` names it.
        checkpoint: The weights.
        fp32: An engine of ONNX Runtime with the same weights, which INT8 is calibrated with.
    """
    options = BuildOptions(checkpoint=checkpoint, backend=backend, verify_slices=0)
    if precision == "int8":
        assert fp32 is not None
        rest = "bf16" if "bf16" in options.spec.rests and find().bf16 else "fp32"
        recipe = write_noise_recipe(fp32, checkpoint.with_name("noise.calibration"))
        return replace(
            options, precision=precision, calibration=recipe, rest=rest, gate=GateOptions(sentences=0, accept=True)
        )
    return replace(options, precision=precision, gate=GateOptions(sentences=0))


def write_noise_recipe(engine: Path, output: Path) -> Path:
    """Write a recipe with the ranges of noise.

    The layers are those of the bundled recipe, so that as much is INT8 as in an engine whose accuracy was judged.  The
    text graph, which computes once per series, stays in floating point.

    Args:
        engine: An fp32 engine of ONNX Runtime.
        output: The new folder of the recipe.

    Returns:
        The folder.
    """
    candidates = open_candidates(engine)
    manifest = candidates.engine.manifest
    kept = set(read_recipe(demo_calibration()).kept["image"])
    layers = [layer for layer in candidates.layers["image"] if layer.name not in kept]
    size, rng = manifest.image_size, np.random.default_rng(SEED)
    images = rng.uniform(-1, 1, (SLICES, manifest.channels, size, size)).astype(np.float32)
    mask = np.ones((1, manifest.max_tokens), np.float32)
    backend = open_backend(candidates.engine, device="cpu")
    text = backend.encode_text(rng.integers(5, 100, mask.shape), mask)
    backend.close()
    feeds = ({"image": image[None], "mask": mask} | text.arrays for image in images)
    recipe = Recipe(
        weights_digest=manifest.weights_digest,
        preset=manifest.preset,
        image_size=size,
        method=f"minmax of {SLICES} slices of noise; for speed alone",
        layers={"text": {}, "image": measure_ranges(candidates.graphs["image"], layers, feeds, "minmax")},
        kept={},
        macs_share=sum(layer.macs for layer in layers) / candidates.total_macs,
        max_dice_drop=MAX_DICE_DROP,
        slices_digest=sha256(images.tobytes()),
    )
    output.mkdir()
    write_json(output / RECIPE, asdict(recipe))
    return output
