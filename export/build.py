"""An engine directory from a checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from lsms_rt.data import demo_checkpoint
from lsms_rt.engine.manifest import Manifest, batch_profile, write_manifest
from lsms_rt.engine.opening import BACKENDS
from lsms_rt.engine.tensorrt.flavour import FLAVOURS, Flavour
from lsms_rt.errors import InputError
from lsms_rt.model import LSMS
from lsms_rt.model.lsms import TOKENIZER

from .compact import store_as_fp16, strip_metadata
from .describe import manifest_of
from .graphs import export_graphs
from .plans import (
    check_output,
    digests,
    measured_with,
    move_into_place,
    no_plugins,
    note_not_run,
    why_not_here,
    write_plans,
)
from .precision import WHY, kept_in_fp32
from .tensorrt import PlanOptions, Progress, check_builder
from .verify import compare, judge, of_model, phantom_examples

PRECISIONS = ("fp32", "fp16")
HALF_SLICES = 2  # that are computed in half precision on the CPU, which has no fast way to do it


@dataclass(frozen=True)
class BuildOptions:
    """What ``lsms-rt build-engine`` is asked for.  ``image_size`` None takes the checkpoint's own.

    ``opt_batch`` is the batch that a plan is tuned for, by default up to eight; the smallest is always 1, since
    ``predict`` asks for one slice.  ``plan`` is for TensorRT's two libraries.
    ``kernels``: "triton" puts our kernels into a TensorRT engine in fp16 as plugins, "stock" does not, "auto" does
    where all that it takes is here.
    """

    checkpoint: Path | None = None
    backend: str = "onnxruntime"
    precision: str = "fp32"
    image_size: int | None = None
    max_batch: int = 8
    opt_batch: int | None = None
    verify_slices: int = 8
    force: bool = False
    kernels: str = "auto"
    plan: PlanOptions = field(default_factory=PlanOptions)

    @property
    def profile(self) -> tuple[int, int, int]:
        return batch_profile(self.max_batch, self.opt_batch)

    @property
    def flavour(self) -> Flavour | None:
        return FLAVOURS.get(self.backend)

    def check(self) -> None:
        """Raise :class:`InputError` for what cannot be built, before minutes of work."""
        for name, value, known in (("backend", self.backend, BACKENDS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise InputError(f"--{name} {value}; choose from {', '.join(known)}")
        if not 1 <= self.max_batch <= 1024:
            raise InputError(f"--max-batch {self.max_batch}; give 1 to 1024")
        batch_profile(self.max_batch, self.opt_batch)
        if not 0 <= self.verify_slices <= 10_000:
            raise InputError(f"--verify-slices {self.verify_slices}; give 0 to 10000")
        if self.flavour is not None:
            check_builder(self.flavour, self.plan)
            self.chosen_kernels()
        elif self.kernels == "triton":
            raise InputError("--kernels triton is for --backend tensorrt; others run stock operations")
        elif self.opt_batch is not None:
            raise InputError("--opt-batch is for plans, --backend tensorrt and tensorrt-rtx")
        elif self.plan != PlanOptions():
            raise InputError(
                "options of a plan (--target, --workspace ...) are for --backend tensorrt and tensorrt-rtx"
            )

    def chosen_kernels(self) -> str:
        """ "triton" or "stock".  Raises :class:`InputError` where "triton" is asked for and something is missing."""
        if self.kernels == "stock":
            return "stock"
        missing = no_plugins(self.flavour, self.precision, self.plan)
        if missing and self.kernels == "triton":
            raise InputError(f"--kernels triton: {missing}; take --kernels stock")
        return "stock" if missing else "triton"


Say = Callable[[str], None]


def build_engine(
    options: BuildOptions, output: Path, say: Say = lambda _: None, progress: Progress | None = None
) -> Manifest:
    """Export, check against the reference, and write the engine directory ``output``; returns its manifest.

    ``say`` is told of every step, ``progress`` of those inside TensorRT.  The directory appears only when it is
    complete and verified.
    Raises :class:`InputError` for a checkpoint, output or options that cannot be used, ``EnvironmentProblem`` where the
    backend is missing, :class:`EngineError` where the engine does not answer what the reference answers.
    """
    options.check()
    checkpoint = options.checkpoint or demo_checkpoint()
    check_output(output, options.force)
    kernels = options.chosen_kernels()
    model = _load(checkpoint, options.image_size, kernels)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".building-") as place:
        folder = Path(place) / "graphs"
        say("exporting the text and the image graph (half a minute)")
        manifest = _graph_engine(model, checkpoint, options, folder)
        if options.verify_slices:
            say(f"comparing with PyTorch on {options.verify_slices} phantom slices")
            reference = _load(checkpoint, options.image_size, "reference")
            manifest = _verified(folder, manifest, reference, options)
            if options.precision == "fp16":
                say(f"comparing every operation in float16, on {min(options.verify_slices, HALF_SLICES)} (a minute)")
                manifest = _verified_in_half(folder, manifest, reference, model, options)
        if options.flavour is not None:
            say(f"building the plans of {options.flavour.title}")
            graphs, folder = folder, Path(place) / "plans"
            profile, flavour = options.profile, options.flavour
            manifest = write_plans(graphs, manifest, profile, options.plan, flavour, folder, progress)
            reason = why_not_here(manifest, flavour)
            if reason:
                say(f"the plans are not run: {reason}")
                manifest = note_not_run(folder, manifest, reason)
            if options.verify_slices and not reason:
                say("comparing the plans with PyTorch, on this GPU")
                manifest = _verified(folder, manifest, reference, options)
        move_into_place(folder, output, Path(place))
    return manifest


def _load(checkpoint: Path, image_size: int | None, kernels: str = "stock") -> LSMS:
    try:
        model = LSMS.from_pretrained(checkpoint, kernels)
        if image_size is not None:
            model.config = replace(model.config, image_size=image_size)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    if not (checkpoint / TOKENIZER).is_file():
        raise InputError(f"{checkpoint} is not a checkpoint: it has no {TOKENIZER}")
    return model


def _graph_engine(model: LSMS, checkpoint: Path, options: BuildOptions, folder: Path) -> Manifest:
    """Write an engine for ONNX Runtime into ``folder``: it is what is verified, and what plans are made from."""
    import onnxruntime

    folder.mkdir()
    half = options.precision == "fp16"
    kept = {}
    nodes = None
    if model.kernels == "triton":
        from . import kernel_nodes  # which needs Triton

        nodes = kernel_nodes.translations()
    for path in export_graphs(model.half() if half else model, folder, nodes):
        graph = onnx.load(path)
        store_as_fp16(graph)
        strip_metadata(graph)
        if nodes is not None:
            kernel_nodes.give_bodies(graph, kernel_nodes.name_nodes(graph))
        if half:
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
        kept_in_fp32=kept | {"why": WHY} if half else {},
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
    judge(parity, options.precision)
    accuracy = parity.to_dict() | {"measured_with": "PyTorch on a CPU, every operation in float16"}
    manifest = replace(manifest, accuracy=accuracy | {"graphs": manifest.accuracy})
    write_manifest(folder, manifest)
    return manifest
