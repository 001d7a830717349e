"""Build an engine of TensorRT plans from an engine of ONNX graphs.

Needs TensorRT and not PyTorch: this is how a device builds its own plans.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lsms_rt.atomic import work_folder
from lsms_rt.engine.graph_backend import IMAGE_GRAPH, TEXT_GRAPH
from lsms_rt.engine.manifest import Manifest, open_directory
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.engine.tensorrt.compatibility import check_gpu, platform_name
from lsms_rt.engine.tensorrt.variant import RTX_TARGETS, TensorRtVariant, load
from lsms_rt.errors import LsmsError
from lsms_rt.machine.gpu import query_driver
from lsms_rt.sentences.contract import TABLE

from .directory import Draft, check_output, check_source, copied, digests, measured_with
from .kernel_choice import chosen_kernels
from .options import BuildOptions, PlanOptions
from .references import of_engine
from .tensorrt import Profile, Progress, build_plan, check_builder
from .verify import bundled_examples, compare, judge

# In the engine directory: a report of the plans' layers.
LAYERS = "layers.json"
TOKENIZER = "tokenizer.json"


def convert_engine(
    source: Path, variant: TensorRtVariant, profile: Profile, options: PlanOptions, output: Path, *,
    digest: str | None = None, force: bool = False, say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Manifest:  # fmt: skip
    """Build the plans of an ONNX Runtime engine, in its precision.

    If this machine can run them, they are compared with their graphs, on the bundled slices, before they are written.

    Args:
        source: the engine of graphs.
        variant: the library that builds.
        profile: (min, opt, max) batch.
        options: of the builder.
        output: the engine directory to write.
        digest: "sha256:HEX" of ``source`` from a trusted source; another engine is rejected.  None: no check.
        force: whether an engine at ``output`` is replaced.
        say: called with a message at every step.
        progress: called with steps inside of the library.

    Returns:
        The manifest of the new engine.

    Raises:
        InputError, EngineError, MachineError: as ``build_engine``.
    """
    check_builder(variant, options)
    check_output(output, force, source=source)
    engine = open_directory(source, digest)
    check_source(engine)
    with work_folder(output) as work:
        graphs = copied(engine, work / "graphs")
        plans = make_plans(graphs, profile, options, variant, work / "plans", progress)
        if plans.manifest.gate:
            gate = plans.manifest.gate | {"of": "the graphs; the plans made of them were not asked"}
            plans = plans.noted(gate=gate)
        if plans.not_run:
            say(f"the plans are not run: {plans.not_run}")
        else:
            parity = compare(of_engine(graphs.open()), plans.open(), bundled_examples())
            judge(parity, plans.manifest.precision)
            measured = parity.to_dict() | {"measured_with": measured_with(plans.manifest), "against": "its graphs"}
            plans = plans.noted(accuracy=plans.manifest.accuracy | {"plans": measured})
        plans.finish(output)
    return plans.manifest


def check_build(options: BuildOptions) -> str:
    """Check that the backend can be built for on this machine, and choose the kernels.

    Returns:
        The kernels, see ``chosen_kernels``.

    Raises:
        InputError: the options are not supported, or "triton" is requested and something it needs is missing.
        MachineError: the library is missing, or a GPU that it needs.
    """
    if options.variant is None:
        options.spec.load().check_machine(options.precision, options.floating)
        return "stock"
    check_builder(options.variant, options.plan)
    return chosen_kernels(options)


def make_plans(
    graphs: Draft,
    profile: Profile,
    options: PlanOptions,
    variant: TensorRtVariant,
    folder: Path,
    progress: Progress | None,
) -> Draft:
    """Build the plans of an engine of graphs in the new ``folder``.

    The manifest records under ``accuracy`` if the plans cannot be run on this machine.
    """
    folder.mkdir()
    layers = {}
    plugins = graphs.manifest.kernels == "triton"
    suffix = BACKENDS[variant.name].file_suffix
    for name in (TEXT_GRAPH, IMAGE_GRAPH):
        graph = graphs.folder / name
        if name == IMAGE_GRAPH and plugins:
            graph = _with_plugins(variant, graph)
        file = (folder / name).with_suffix(suffix)
        plan, layers[file.name] = build_plan(variant, graph, profile, options, progress)
        file.write_bytes(plan)
    (folder / LAYERS).write_text(json.dumps(layers, indent=1) + "\n")
    for name in (TOKENIZER, TABLE):
        # Engines of version 0.1 have no table.
        if name in graphs.manifest.files:
            shutil.copyfile(graphs.folder / name, folder / name)
    # A plan that is not portable was tuned on this machine's GPU.
    gpu = None if variant.portable else query_driver().gpus[0]
    facts = {"platform": platform_name()} | ({"plugins": gpu.arch} if gpu and plugins else {})
    manifest = replace(
        graphs.manifest,
        backend=variant.name,
        backend_version=load(variant).__version__,
        max_batch=profile[2],
        profile=profile,
        compute_capability=".".join(map(str, gpu.capability)) if gpu else None,
        device_name=gpu.name if gpu else None,
        target_capabilities=(options.targets or tuple(RTX_TARGETS)) if variant.portable else (),
        plan_options=options.to_dict() | facts,
        files=digests(folder),
    )
    not_run = _why_not_here(manifest, variant)
    if not_run:
        manifest = replace(manifest, accuracy=manifest.accuracy | {"plans": f"not run: {not_run}"})
    return Draft(folder, manifest, not_run)


def _why_not_here(manifest: Manifest, variant: TensorRtVariant) -> str:
    """Return why plans that were just built cannot be run on this machine; empty if they can."""
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed"
    try:
        check_gpu(manifest, query_driver(), 0, variant)
    except LsmsError as error:
        return str(error)
    return ""


def _with_plugins(variant: TensorRtVariant, graph: Path) -> Path:
    """Compile the kernels for this machine's GPU; the plan holds them, and needs neither Triton nor Python for them."""
    from lsms_rt.kernels.aot import compile_launch

    from .kernel_nodes import with_plugins

    return with_plugins(load(variant), graph, query_driver().gpus[0].arch, compile_launch)
