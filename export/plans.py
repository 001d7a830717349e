"""An engine of plans from an engine of graphs.  Needs TensorRT and no PyTorch: a device builds its own plans so."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lsms_rt.engine.manifest import Manifest, open_directory, sha256, write_manifest
from lsms_rt.engine.onnxruntime import IMAGE_GRAPH, TEXT_GRAPH
from lsms_rt.engine.tensorrt.flavour import RTX_TARGETS, Flavour, load
from lsms_rt.errors import EngineError, InputError
from lsms_rt.gpu import look

from .tensorrt import PlanOptions, build_plan
from .verify import bundled_examples, compare, judge, of_engine

LAYERS, TOKENIZER = "layers.json", "tokenizer.json"  # in the engine directory: a report of its plans' layers
Progress = Callable[[str, int, int], None]


def convert_engine(
    source: Path, flavour: Flavour, options: PlanOptions, output: Path, force: bool = False,
    progress: Progress | None = None,
) -> Manifest:  # fmt: skip
    """Write into ``output`` the plans of the ONNX Runtime engine at ``source``, in its precision.

    Where there is a GPU the plans are compared with their graphs, on the bundled slices, before they are written.
    Raises as ``build_engine`` does.
    """
    options.check(flavour)
    load(flavour)
    check_output(output, force)
    graphs = open_directory(source)
    if graphs.manifest.backend != "onnxruntime":
        raise InputError(f"--from {source} is an engine of {graphs.manifest.backend}; give one of onnxruntime")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".building-") as place:
        checked, folder = Path(place) / "graphs", Path(place) / "plans"
        checked.mkdir()
        for name in graphs.manifest.files:
            (checked / name).write_bytes(graphs.read(name))  # the very bytes whose digests were right
        write_manifest(checked, graphs.manifest)
        manifest = write_plans(checked, graphs.manifest, options, flavour, folder, progress)
        if manifest.compute_capability is not None:
            parity = compare(of_engine(checked), folder, bundled_examples())
            judge(parity, manifest.precision)
            plans = parity.to_dict() | {"measured_with": measured_with(manifest), "against": "its graphs"}
            manifest = replace(manifest, accuracy=manifest.accuracy | {"plans": plans})
            write_manifest(folder, manifest)
        if output.exists():
            output.rename(Path(place) / "replaced")
        folder.rename(output)
    return manifest


def write_plans(
    graphs: Path, manifest: Manifest, options: PlanOptions, flavour: Flavour, folder: Path, progress: Progress | None
) -> Manifest:
    """Write an engine of plans into the new ``folder``, made from the graphs in ``graphs``, whose manifest is given."""
    folder.mkdir()
    layers = {}
    for name in (TEXT_GRAPH, IMAGE_GRAPH):
        plan, layers[name] = build_plan(flavour, graphs / name, options, progress)
        (folder / name).with_suffix(".plan").write_bytes(plan)
    (folder / LAYERS).write_text(json.dumps(layers, indent=1) + "\n")
    shutil.copyfile(graphs / TOKENIZER, folder / TOKENIZER)
    driver = look()
    gpu = driver.gpus[0] if driver.gpus else None
    manifest = replace(
        manifest,
        backend=flavour.name,
        backend_version=load(flavour).__version__,
        max_batch=options.profile[2],
        profile=options.profile,
        compute_capability=".".join(map(str, gpu.capability)) if gpu else None,
        device_name=gpu.name if gpu else None,
        target_capabilities=(options.targets or tuple(RTX_TARGETS)) if flavour.portable else (),
        plan_options=options.to_dict(),
        files=digests(folder),
    )
    write_manifest(folder, manifest)
    return manifest


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
    return {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())}


def measured_with(manifest: Manifest) -> str:
    """What ran when an engine was compared: backend, version and device."""
    device = f" on {manifest.device_name}" if manifest.device_name else ""
    return f"{manifest.backend} {manifest.backend_version}{device}"
