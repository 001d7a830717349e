"""INT8 in a build: a recipe into graphs, and what a manifest says of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from lsms_rt.calibration.recipe import Recipe
from lsms_rt.errors import InputError

from .graph.layers import dense_layers, read_graph
from .graph.qdq import int8_layers, macs_share, quantize


def make_int8(graph: onnx.ModelProto, recipe: Recipe, name: str) -> None:
    """Make the recipe's layers of one graph INT8, in place."""
    wanted = recipe.layers.get(name, {})
    missing = set(wanted) - {layer.name for layer in dense_layers(graph)}
    if missing:
        raise InputError(
            f"the calibration names layer {min(missing)!r}, which the {name} graph does not have: it was made by "
            "another version of lsms-rt; calibrate again"
        )
    quantize(graph, wanted)


def describe_int8(recipe: Recipe, rest: str, folder: Path) -> dict[str, Any]:
    """What a manifest says of an INT8 engine: where its recipe came from and, read off its graphs, what is INT8."""
    graphs = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
    models = {name: read_graph(data) for name, data in graphs.items()}
    layers = {name: len(int8_layers(model)) for name, model in models.items()}
    dense = {name: len(dense_layers(model)) for name, model in models.items()}
    return {
        "method": recipe.method,
        "recipe_digest": recipe.digest,
        "slices_digest": recipe.slices_digest,
        "int8_layers": layers,
        "floating_point_layers": {name: dense[name] - count for name, count in layers.items()},
        "macs_share": round(macs_share(graphs), 4),
        "rest": rest,
    }
