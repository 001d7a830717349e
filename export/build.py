"""Build an engine directory from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from lsms_rt.atomic import work_folder
from lsms_rt.calibration.recipe import Recipe, read_recipe
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.tensorrt.variant import TENSORRT
from lsms_rt.engine.vocabulary import MAX_INPUT_VALUES
from lsms_rt.errors import InputError, chain_cut
from lsms_rt.model import LSMS

from . import child, gate, kernel_choice
from .checkpoint import load_model, weights_digest
from .directory import Draft, check_output
from .graphs import make_graphs

# alias of version 0.1
from .options import BuildOptions as BuildOptions
from .options import report_path, skipped
from .plans import check_build, make_plans
from .references import Reference, of_model
from .tensorrt import Progress
from .verify import HALF_SLICES, verify, verify_in_half

Say = Callable[[str], None]
# What was made with plugins, and ms per slice of both.
Tried = tuple[kernel_choice.Made, dict[str, float]]


@chain_cut
def build_engine(
    options: BuildOptions, output: Path, say: Say = lambda _: None, progress: Progress | None = None
) -> Manifest:
    """Build an engine: export, compare with PyTorch, build plans, run the accuracy gate, write.

    Args:
        options: what to build.
        output: the engine directory; it appears only when it is complete and verified.
        say: called with a message at every step.
        progress: called with steps inside of TensorRT: phase, step, number of steps.

    Returns:
        The engine's manifest.

    Raises:
        InputError: the checkpoint, the output or the options cannot be used.
        MachineError: the backend's library, or a GPU that it needs, is missing.
        EngineError: the engine differs from PyTorch by more than its precision explains.
        AccuracyGateError: the engine loses more accuracy than is allowed.
    """
    kernels = check_build(options)
    check_output(output, options.force, options.report)
    checkpoint = options.checkpoint or demo_checkpoint()
    # The rest of a block is TensorRT's, which fuses it; "auto" begins with stock operations.
    model = load_model(checkpoint, options.image_size, "plugins" if kernels == "triton" else "stock")
    values = model.config.image_size**2 * model.config.in_channels
    if values * options.max_batch > MAX_INPUT_VALUES:
        raise InputError(
            f"--max-batch {options.max_batch} at {model.config.image_size}x{model.config.image_size} pixels; give at "
            f"most {MAX_INPUT_VALUES // values}"
        )
    recipe = None
    if options.calibration is not None:
        recipe = read_recipe(options.calibration)
        recipe.check(weights_digest(checkpoint), model.config.image_size)
    with work_folder(output) as work:
        if options.gated:
            # Before the expensive steps: the data set may turn out to be unusable.
            data = gate.held_out_data(options.gate, recipe, work, model.config.image_size)
        reference = _reference(options, checkpoint)
        graphs, engine = _make(options, checkpoint, recipe, reference, say, progress, model, work / "made")
        if kernels == "auto":

            def with_plugins() -> Tried:
                say("the same with this project's kernels as plugins, in a process of its own")
                given = options, checkpoint, engine, work / "plugins"
                tried: Tried = child.call(_try_plugins, *given, say=say, progress=progress)
                return tried

            graphs, engine = kernel_choice.faster((graphs, engine), with_plugins, options.profile[1], say)
        elif options.kernels == "auto" and options.variant is TENSORRT:
            engine = kernel_choice.noted(engine, f"not compared: {kernel_choice.not_compared(options)}", say)
        page = None
        if options.gated:
            say(f"accuracy gate: asking the engine and PyTorch {len(data.rows)} held-out sentences")
            measured = graphs if engine.not_run else engine
            refused_report = report_path(options.report, output, refused=True)
            record, page = gate.run(reference(), measured, engine, data, options.gate, refused_report)
            engine = engine.noted(gate=record)
        elif options.precision != "fp32":
            engine = engine.noted(gate=skipped(options.gate))
        engine.finish(output)
        if page is not None:
            gate.write_report(report_path(options.report, output), page)
    return engine.manifest


def _reference(options: BuildOptions, checkpoint: Path) -> Callable[[], Reference]:
    """Return what PyTorch answers; it is loaded when it is needed first."""
    return cache(lambda: of_model(load_model(checkpoint, options.image_size, "reference")))


def _try_plugins(
    options: BuildOptions, checkpoint: Path, stock: Draft, folder: Path, *, say: Say, progress: Progress | None = None
) -> Tried:
    """Make the graphs and the engine with plugins in the new ``folder``, and time both engines."""
    model, reference = load_model(checkpoint, options.image_size, "plugins"), _reference(options, checkpoint)
    # No recipe: it is for INT8, which has no plugins.
    made = _make(options, checkpoint, None, reference, say, progress, model, folder)
    return made, kernel_choice.times(stock, made[1], options.profile[1])


def _make(
    options: BuildOptions, checkpoint: Path, recipe: Recipe | None, reference: Callable[[], Reference], say: Say,
    progress: Progress | None, model: LSMS, folder: Path,
) -> kernel_choice.Made:  # fmt: skip
    """Make the graphs and the engine of a model in the new ``folder``, and compare both; engines of graphs are one."""
    folder.mkdir()
    slices = options.verify_slices
    say("exporting the text and the image graph (half a minute, or from the cache)")
    graphs = make_graphs(model, checkpoint, options, recipe, folder / "graphs")
    if slices:
        say(f"comparing with PyTorch on {slices} phantom slices")
        graphs = graphs.noted(accuracy=verify(graphs.open(), reference(), slices))
    if slices and options.half:
        say(f"comparing every operation in float16, on {min(slices, HALF_SLICES)} (a minute)")
        graphs = graphs.noted(accuracy=verify_in_half(graphs.open(), reference(), model, slices))
    if options.variant is None:
        return graphs, graphs
    say(f"building the plans of {options.variant.title}")
    engine = make_plans(graphs, options.profile, options.plan, options.variant, folder / "plans", progress)
    if engine.not_run:
        say(f"the plans are not run: {engine.not_run}")
    elif slices:
        say("comparing the plans with PyTorch, on this GPU")
        engine = engine.noted(accuracy=verify(engine.open(), reference(), slices))
    return graphs, engine
