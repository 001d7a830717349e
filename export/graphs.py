"""A model as an engine of two ONNX graphs: what is verified, and what plans are built from."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from lsms_rt.calibration.recipe import Recipe
from lsms_rt.engine.graph_backend import IMAGE_GRAPH
from lsms_rt.engine.registry import ONNXRUNTIME
from lsms_rt.errors import InputError
from lsms_rt.model import LSMS
from lsms_rt.model.lsms import TOKENIZER
from lsms_rt.sentences.contract import TABLE, table_of

from .checkpoint import manifest_of
from .directory import Draft, digests
from .graph.channel_split import split
from .graph.layers import dense_layers, read_graph, shapes_of
from .graph.passes import WHY_FP32, kept_in_fp32, name_dense_nodes, store_as_fp16, strip_metadata
from .graph.qdq import int8_layers, macs_share, quantize
from .graph_cache import Graphs, cached_graphs
from .onnx_export import export_graphs
from .options import BuildOptions


def make_graphs(model: LSMS, checkpoint: Path, options: BuildOptions, recipe: Recipe | None, folder: Path) -> Draft:
    """Export a model into the new ``folder``, as an engine for the backend; for ONNX Runtime if it is to become plans.

    Args:
        model: the model to export; it is in float16 afterwards if the graphs are.
        checkpoint: its folder.
        options: of the build.
        recipe: the layers that become INT8, and the ranges of their inputs; None for none.
        folder: the folder to write; its parent exists.

    Raises:
        InputError: the recipe names layers that the graphs do not have.
        ValueError: the model's form cannot be exported.
    """
    folder.mkdir()
    kept: dict[str, Any] = {}
    for name, data in export_named(model.half() if options.half else model).items():
        graph = onnx.load_from_string(data)
        if recipe is not None:
            graph = read_graph(data)
            _make_int8(graph, recipe, Path(name).stem)
        elif options.for_cpu and name == IMAGE_GRAPH:
            split(graph, shapes_of(graph))
        store_as_fp16(graph)
        nodes = _kernel_nodes(model)
        if nodes is not None:
            nodes.attach_fallback_functions(graph, nodes.name_nodes(graph))
        if options.half:
            kept[name] = kept_in_fp32(graph)
        onnx.save(graph, folder / name)
    shutil.copyfile(checkpoint / TOKENIZER, folder / TOKENIZER)
    (folder / TABLE).write_bytes(table_of(checkpoint))
    backend = ONNXRUNTIME if options.spec.builds_plans else options.spec
    manifest = manifest_of(
        model.config,
        checkpoint,
        options.profile,
        backend=backend.name,
        backend_version=backend.load().library_version(backend.name),
        precision=options.precision,
        kernels="stock" if _kernel_nodes(model) is None else "triton",
        kept_in_fp32=kept | {"why": WHY_FP32} if options.half else {},
        calibration=None if recipe is None else _calibration_of(recipe, options.floating, folder),
        files=digests(folder),
    )
    return Draft(folder, manifest)


def export_named(model: LSMS) -> Graphs:
    """Export a model's graphs, with named layers and without metadata; from the cache if it holds them.

    Raises:
        ValueError: the model's form cannot be exported.
    """
    kernel_nodes = _kernel_nodes(model)
    translations = kernel_nodes.translations() if kernel_nodes else None

    def export() -> Graphs:
        graphs = {}
        with tempfile.TemporaryDirectory() as folder:
            for path in export_graphs(model, Path(folder), translations):
                graph = onnx.load(path)
                name_dense_nodes(graph)
                strip_metadata(graph)
                graphs[path.name] = graph.SerializeToString()
        return graphs

    # Graphs of kernel nodes are not cached: they belong to the kernels and their tuned tiles as well.
    return export() if kernel_nodes else cached_graphs(model, export)


def _kernel_nodes(model: LSMS) -> ModuleType | None:
    """Return the module for graphs of our kernels, which needs Triton; None for a model of stock operations."""
    if model.kernels == "stock":
        return None
    if model.kernels != "plugins":
        raise ValueError(
            f"a model of kernels={model.kernels!r} cannot be exported; load it with kernels='stock', or 'plugins' "
            "for this project's kernels as plugins"
        )
    from . import kernel_nodes

    return kernel_nodes


def _make_int8(graph: onnx.ModelProto, recipe: Recipe, name: str) -> None:
    """Make the recipe's layers of one graph INT8, in place."""
    ranges = recipe.layers.get(name, {})
    missing = set(ranges) - {layer.name for layer in dense_layers(graph)}
    if missing:
        raise InputError(
            f"the calibration names layer {min(missing)!r}, which the {name} graph does not have: it was made by "
            "another version of lsms-rt; run lsms-rt calibrate again"
        )
    quantize(graph, ranges)


def _calibration_of(recipe: Recipe, rest: str | None, folder: Path) -> dict[str, Any]:
    """Return what a manifest records of an INT8 engine: its recipe and, read off its graphs, what is INT8."""
    graphs = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
    models = {name: read_graph(data) for name, data in graphs.items()}
    layers = {name: len(int8_layers(model)) for name, model in models.items()}
    dense = {name: len(dense_layers(model)) for name, model in models.items()}
    return {
        "method": recipe.method,
        "recipe_digest": recipe.digest,
        "slices_digest": recipe.slices_digest,
        "candidate_sets": recipe.measured.get("candidate_sets"),
        "int8_layers": layers,
        "floating_point_layers": {name: dense[name] - count for name, count in layers.items()},
        "macs_share": round(macs_share(graphs), 4),
        "rest": rest,
    }
