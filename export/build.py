"""An engine directory from a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.calibration.gate import GateData, gate_data
from lsms_rt.calibration.recipe import Recipe, read_recipe
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine.manifest import Manifest, write_manifest
from lsms_rt.engine.onnxruntime import IMAGE_GRAPH
from lsms_rt.errors import InputError
from lsms_rt.model import LSMS
from lsms_rt.model.lsms import TOKENIZER

from .gate import gate, skipped, write_report
from .graph.channel_split import split
from .graph.compact import store_as_fp16, strip_metadata
from .graph.layers import read_graph, shapes_of
from .graph.names import name_dense_nodes
from .graph.precision import WHY, kept_in_fp32
from .int8 import describe_int8, make_int8
from .manifest_fields import manifest_of, weights_digest
from .onnx_export import export_graphs
from .options import BuildOptions, GateOptions
from .plans import (
    check_output,
    digests,
    measured_with,
    no_plugins,
    note_not_run,
    why_not_here,
    write_plans,
)
from .tensorrt import Progress, check_builder
from .verify import compare, judge, of_model, phantom_examples

HALF_SLICES = 2  # that are computed in half precision on the CPU, which has no fast way to do it


Say = Callable[[str], None]


def build_engine(
    options: BuildOptions, output: Path, say: Say = lambda _: None, progress: Progress | None = None
) -> Manifest:
    """Export, check against the reference, and write the engine directory ``output``; returns its manifest.

    ``say`` is told of every step, ``progress`` of those inside TensorRT.  The directory appears only when it is
    complete and verified.
    Raises :class:`InputError` for a checkpoint, output or options that cannot be used, ``MachineError`` where the
    backend is missing, :class:`EngineError` where the engine does not answer what the reference answers,
    :class:`AccuracyGateError` where its answers are worse by more than is allowed.
    """
    if options.variant is not None:
        check_builder(options.variant, options.plan)
    kernels = chosen_kernels(options)
    checkpoint = options.checkpoint or demo_checkpoint()
    check_output(output, options.force)
    model = _load(checkpoint, options.image_size, kernels)
    recipe = None
    if options.calibration is not None:
        recipe = read_recipe(options.calibration)
        recipe.check(weights_digest(checkpoint), model.config.image_size)
    report = options.report_path(output)
    if report.resolve().is_relative_to(output.resolve()):
        raise InputError(f"--report {report} is inside of the engine; give a file beside it")
    gated = options.precision != "fp32" and options.gate.sentences > 0
    with work_folder(output) as place:
        if gated:  # first of all: a data set that cannot be used is known before minutes of work
            data = _gate_data(options.gate, recipe, place, model.config.image_size)
        folder = place / "graphs"
        say("exporting the text and the image graph (half a minute)")
        manifest = _graph_engine(model, checkpoint, options, recipe, folder)
        if options.verify_slices or gated:
            reference = _load(checkpoint, options.image_size, "reference")
        if options.verify_slices:
            say(f"comparing with PyTorch on {options.verify_slices} phantom slices")
            manifest = _verified(folder, manifest, reference, options)
            if options.half:
                say(f"comparing every operation in float16, on {min(options.verify_slices, HALF_SLICES)} (a minute)")
                manifest = _verified_in_half(folder, manifest, reference, model, options)
        graphs, reason = folder, None
        if options.variant is not None:
            say(f"building the plans of {options.variant.title}")
            folder = place / "plans"
            profile, variant = options.profile, options.variant
            manifest = write_plans(graphs, manifest, profile, options.plan, variant, folder, progress)
            reason = why_not_here(manifest, variant)
            if reason:
                say(f"the plans are not run: {reason}")
                manifest = note_not_run(folder, manifest, reason)
            if options.verify_slices and not reason:
                say("comparing the plans with PyTorch, on this GPU")
                manifest = _verified(folder, manifest, reference, options)
        if gated:
            say(f"gate: asking engine and PyTorch {len(data.rows)} held-out sentences")
            refused = options.report_path(output, refused=True)
            measured = graphs if reason else folder
            record, page = gate(reference, measured, manifest, reason, data, options.gate, refused)
            manifest = replace(manifest, gate=record)
        elif options.precision != "fp32":
            manifest = replace(manifest, gate=skipped(options.gate))
        write_manifest(folder, manifest)
        move_folder(folder, output)
        if gated:
            write_report(report, page)
    return manifest


def chosen_kernels(options: BuildOptions) -> str:
    """Return "triton" or "stock", the kernels that an engine with ``options`` runs.

    Raises :class:`InputError` if "triton" is requested and something it needs is missing.
    """
    if options.kernels == "stock":
        return "stock"
    missing = no_plugins(options.variant, options.precision, options.plan)
    if missing and options.kernels == "triton":
        raise InputError(f"--kernels triton: {missing}; use --kernels stock")
    return "stock" if missing else "triton"


def _gate_data(options: GateOptions, recipe: Recipe | None, place: Path, image_size: int) -> GateData:
    """The held-out rows.  Raises :class:`InputError` where the recipe was made with some of their slices."""
    data = gate_data(options.dataset, options.split, options.sentences, place, image_size)
    seen = recipe.overlap(data.images) if recipe is not None else 0
    if seen:
        raise InputError(
            f"{seen} of the gate's {len(data.images)} slices were used to calibrate, and prove nothing; give another "
            "--split or --dataset"
        )
    return data


def _load(checkpoint: Path, image_size: int | None, kernels: str = "stock") -> LSMS:
    try:
        model = LSMS.from_pretrained(checkpoint, kernels)
        if kernels != "reference":
            model.fold_decoder()
        if image_size is not None:
            model.config = replace(model.config, image_size=image_size)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    if not (checkpoint / TOKENIZER).is_file():
        raise InputError(f"{checkpoint} is not a checkpoint: it has no {TOKENIZER}")
    return model


def _graph_engine(
    model: LSMS, checkpoint: Path, options: BuildOptions, recipe: Recipe | None, folder: Path
) -> Manifest:
    """Write an engine for ONNX Runtime into ``folder``: it is what is verified, and what plans are made from."""
    import onnxruntime

    folder.mkdir()
    kept = {}
    nodes = None
    if model.kernels == "triton":
        from . import kernel_nodes  # which needs Triton

        nodes = kernel_nodes.translations()
    for path in export_graphs(model.half() if options.half else model, folder, nodes):
        graph = onnx.load(path)
        name_dense_nodes(graph)
        if recipe is not None:
            graph = read_graph(graph.SerializeToString())
            make_int8(graph, recipe, path.stem)
        elif options.for_cpu and path.name == IMAGE_GRAPH:
            split(graph, shapes_of(graph))
        store_as_fp16(graph)
        strip_metadata(graph)
        if nodes is not None:
            kernel_nodes.give_bodies(graph, kernel_nodes.name_nodes(graph))
        if options.half:
            kept[path.name] = kept_in_fp32(graph)
        onnx.save(graph, path)
    shutil.copyfile(checkpoint / TOKENIZER, folder / TOKENIZER)
    manifest = manifest_of(
        model.config,
        checkpoint,
        options.profile,
        backend="onnxruntime",
        backend_version=onnxruntime.__version__,
        precision=options.precision,
        kernels=model.kernels,
        kept_in_fp32=kept | {"why": WHY} if options.half else {},
        calibration=None if recipe is None else describe_int8(recipe, options.rest, folder),
        files=digests(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def _verified(folder: Path, manifest: Manifest, reference: LSMS, options: BuildOptions) -> Manifest:
    """Compare the engine in ``folder`` with the reference, refuse it or write the figures into its manifest."""
    examples = phantom_examples(options.verify_slices, manifest.image_size)
    parity = compare(of_model(reference), folder, examples)
    judge(parity, options.precision)
    manifest = replace(manifest, accuracy=parity.to_dict() | {"measured_with": measured_with(manifest)})
    write_manifest(folder, manifest)
    return manifest


def _verified_in_half(folder: Path, manifest: Manifest, reference: LSMS, half: LSMS, options: BuildOptions) -> Manifest:
    """Compare again with every operation in float16: ONNX Runtime's CPU computes an fp16 graph in fp32 inside.

    PyTorch's CPU rounds after every operation, so that an overflow is an overflow.  ``half`` is the exported model.
    """
    examples = phantom_examples(min(options.verify_slices, HALF_SLICES), manifest.image_size)
    parity = compare(of_model(reference), folder, examples, of_model(half))
    judge(parity, "fp16")  # what is not INT8 of an INT8 engine, too
    accuracy = parity.to_dict() | {"measured_with": "PyTorch on a CPU, every operation in float16"}
    if options.precision == "int8":  # its figures are those of the graphs, INT8 layers and all
        accuracy = manifest.accuracy | {"rest_in_float16": accuracy}
    else:
        accuracy = accuracy | {"graphs": manifest.accuracy}
    manifest = replace(manifest, accuracy=accuracy)
    write_manifest(folder, manifest)
    return manifest
