"""An engine of plans from an engine of graphs.  Needs TensorRT and no PyTorch: a device builds its own plans so."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.digest import sha256_of_file
from lsms_rt.engine.manifest import Manifest, open_directory, write_manifest
from lsms_rt.engine.onnxruntime import IMAGE_GRAPH, TEXT_GRAPH
from lsms_rt.engine.tensorrt.compatibility import check_gpu, platform_name
from lsms_rt.engine.tensorrt.variant import RTX_TARGETS, TensorRtVariant, load, parse_version
from lsms_rt.errors import EngineError, InputError, LsmsError
from lsms_rt.machine.gpu import look

from .options import PlanOptions
from .tensorrt import Profile, Progress, build_plan, check_builder
from .verify import bundled_examples, compare, judge, of_engine

PLUGINS_FROM = (10, 15)  # TensorRT's Python plugins compiled ahead of time; 10.14's are broken
LAYERS, TOKENIZER = "layers.json", "tokenizer.json"  # in the engine directory: a report of its plans' layers


def convert_engine(
    source: Path, variant: TensorRtVariant, profile: Profile, options: PlanOptions, output: Path, *, force: bool = False,
    say: Callable[[str], None] = lambda _: None, progress: Progress | None = None,
) -> Manifest:  # fmt: skip
    """Write into ``output`` the plans of the ONNX Runtime engine at ``source``, in its precision.

    Where there is a GPU the plans are compared with their graphs, on the bundled slices, before they are written.
    Raises as ``build_engine`` does.
    """
    check_builder(variant, options)
    if output.exists() and output.resolve() == source.resolve():
        raise InputError(f"-o {output} is the engine that --from reads; write the plans beside it")
    check_output(output, force)
    graphs = open_directory(source)
    if graphs.manifest.backend != "onnxruntime":
        raise InputError(f"--from {source} is an engine of {graphs.manifest.backend}; give one of onnxruntime")
    with work_folder(output) as place:
        checked, folder = place / "graphs", place / "plans"
        checked.mkdir()
        for name in graphs.manifest.files:
            (checked / name).write_bytes(graphs.read(name))  # the very bytes whose digests were right
        write_manifest(checked, graphs.manifest)
        manifest = write_plans(checked, graphs.manifest, profile, options, variant, folder, progress)
        if manifest.gate:
            manifest = replace(
                manifest, gate=manifest.gate | {"of": "the graphs; the plans made of them were not asked"}
            )
            write_manifest(folder, manifest)
        reason = why_not_here(manifest, variant)
        if reason:
            say(f"the plans are not run: {reason}")
            manifest = note_not_run(folder, manifest, reason)
        else:
            parity = compare(of_engine(checked), folder, bundled_examples())
            judge(parity, manifest.precision)
            plans = parity.to_dict() | {"measured_with": measured_with(manifest), "against": "its graphs"}
            manifest = replace(manifest, accuracy=manifest.accuracy | {"plans": plans})
            write_manifest(folder, manifest)
        move_folder(folder, output)
    return manifest


def no_plugins(variant: TensorRtVariant | None, precision: str, options: PlanOptions) -> str | None:
    """Why an engine cannot have our kernels as plugins; None where it can."""
    if variant is None or variant.portable:
        return "only TensorRT takes plugins"
    if precision != "fp16":
        return "the plugins are for --precision fp16"
    if options.hardware == "ampere+" or options.version_compatible:
        return "plugins are compiled for this GPU and version, not for --hardware ampere+ or --version-compatible"
    version = parse_version(load(variant).__version__)
    if version < PLUGINS_FROM:
        return f"plugins need TensorRT {'.'.join(map(str, PLUGINS_FROM))}, this is {'.'.join(map(str, version))}"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    from lsms_rt import kernels

    missing = kernels.missing()
    if missing:
        return missing
    from lsms_rt.kernels.aot import TARGETS

    arch = look().gpus[0].arch
    return None if arch in TARGETS else f"the kernels are compiled for {', '.join(TARGETS)}, not for {arch}"


def note_not_run(folder: Path, manifest: Manifest, reason: str) -> Manifest:
    """Write into an engine's manifest that what was measured was not its plans."""
    manifest = replace(manifest, accuracy=manifest.accuracy | {"plans": f"not run: {reason}"})
    write_manifest(folder, manifest)
    return manifest


def why_not_here(manifest: Manifest, variant: TensorRtVariant) -> str | None:
    """Why plans that were just built cannot be run and compared on this machine; None where they can."""
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed"
    try:
        check_gpu(manifest, look(), 0, variant)
    except LsmsError as error:
        return str(error)
    return None


def write_plans(
    graphs: Path, manifest: Manifest, profile: Profile, options: PlanOptions, variant: TensorRtVariant, folder: Path,
    progress: Progress | None,
) -> Manifest:  # fmt: skip
    """Write an engine of plans into the new ``folder``, made from the graphs in ``graphs``, whose manifest is given."""
    folder.mkdir()
    layers = {}
    for name in (TEXT_GRAPH, IMAGE_GRAPH):
        graph = graphs / name
        if name == IMAGE_GRAPH and manifest.kernels == "triton":
            graph = _with_plugins(variant, graph)
        file = (folder / name).with_suffix(".plan")
        plan, layers[file.name] = build_plan(variant, graph, profile, options, progress)
        file.write_bytes(plan)
    (folder / LAYERS).write_text(json.dumps(layers, indent=1) + "\n")
    shutil.copyfile(graphs / TOKENIZER, folder / TOKENIZER)
    gpu = None if variant.portable else look().gpus[0]  # what TensorRT has measured on
    manifest = replace(
        manifest,
        backend=variant.name,
        backend_version=load(variant).__version__,
        max_batch=profile[2],
        profile=profile,
        compute_capability=".".join(map(str, gpu.capability)) if gpu else None,
        device_name=gpu.name if gpu else None,
        target_capabilities=(options.targets or tuple(RTX_TARGETS)) if variant.portable else (),
        plan_options=options.to_dict() | {"platform": platform_name()},
        files=digests(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def _with_plugins(variant: TensorRtVariant, graph: Path) -> Path:
    """Compiled for this machine's GPU; the plan carries them, and needs neither Triton nor Python for them."""
    from lsms_rt.kernels.aot import compile_launch

    from .kernel_nodes import with_plugins

    return with_plugins(load(variant), graph, look().gpus[0].arch, compile_launch)


def check_output(output: Path, force: bool) -> None:
    """Raise :class:`InputError` unless an engine may be written there."""
    if output.exists() and not force:
        raise InputError(f"{output} exists; choose another -o, or --force to replace it")
    if output.exists():
        try:
            open_directory(output)
        except EngineError as error:
            raise InputError(f"{output} exists and is no engine; it is not replaced, choose another -o") from error


def digests(folder: Path) -> dict[str, str]:
    """Names of the files in a folder -> their sha256."""
    return {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}


def measured_with(manifest: Manifest) -> str:
    """What ran when an engine was compared: backend, version and device."""
    device = f" on {manifest.device_name}" if manifest.device_name else ""
    return f"{manifest.backend} {manifest.backend_version}{device}"
