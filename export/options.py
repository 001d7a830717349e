"""Options of ``lsms-rt build-engine``: names, defaults and limits.

The command line reads them from here, so this module imports neither PyTorch nor ONNX.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsms_rt.calibration.options import MAX_DICE_DROP, check_budget
from lsms_rt.engine.manifest import MAX_BATCH, batch_profile
from lsms_rt.engine.registry import BACKENDS, ONNXRUNTIME, BackendSpec
from lsms_rt.engine.tensorrt.variant import HARDWARE, RTX_TARGETS, VARIANTS, TensorRtVariant
from lsms_rt.engine.vocabulary import PRECISIONS as PRECISIONS
from lsms_rt.engine.vocabulary import REST_PRECISIONS as REST_PRECISIONS
from lsms_rt.errors import InputError, MissingDependencyError

KERNELS = ("auto", "triton", "stock")
# In place of a backend's name: the one that runs fastest on this machine.
AUTO = "auto"
MAX_VERIFY_SLICES = 10_000
MAX_GATE_SENTENCES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of TensorRT's builders.

    Attributes:
        targets: GPUs that a plan of TensorRT for RTX supports ("sm_86", ...); empty for all that the library knows.
        workspace_mib: scratch memory that one layer may use, in MiB; None for all of the GPU's.
        timing_cache: file with kernel timings, read if it exists and written after the build; TensorRT only.
        version_compatible: whether newer versions with the same major number can run the plan; TensorRT only.
        hardware: GPUs that can run the plan, a key of ``HARDWARE``; TensorRT only.
        optimization_level: the builder's optimization level, 0 to 5; None for its default; TensorRT only.
    """

    targets: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str = "none"
    optimization_level: int | None = None

    def check(self, variant: TensorRtVariant) -> None:
        """Raise :class:`InputError` for options that the library does not support."""
        unknown = [target for target in self.targets if target not in RTX_TARGETS]
        if self.targets and not variant.portable:
            raise InputError(
                "--target is for --backend tensorrt-rtx; TensorRT builds for the GPU it runs on: remove --target, or "
                "use --hardware same-capability or ampere+"
            )
        if unknown:
            raise InputError(f"--target {','.join(unknown)}: {variant.title} builds for {','.join(RTX_TARGETS)}")
        if self.hardware not in HARDWARE:
            raise InputError(f"--hardware {self.hardware}; choose from {', '.join(HARDWARE)}")
        tensorrt_only = (
            self.hardware != "none",
            self.version_compatible,
            self.timing_cache,
            self.optimization_level is not None,
        )
        if variant.portable and any(tensorrt_only):
            raise InputError(
                "--hardware, --version-compatible, --timing-cache and --optimization-level are for --backend tensorrt; "
                f"{variant.title} compiles for the GPU when the engine is loaded: list GPUs with --target"
            )
        if self.timing_cache is not None and not self.timing_cache.parent.is_dir():
            raise InputError(f"--timing-cache {self.timing_cache}: its folder does not exist; create it first")

    def to_dict(self) -> dict[str, Any]:
        """Return the options that a manifest records."""
        return {
            "hardware": self.hardware,
            "version_compatible": self.version_compatible,
            "workspace_mib": self.workspace_mib,
            "optimization_level": self.optimization_level,
        }


def check_precision(spec: BackendSpec, precision: str, rest: str | None) -> None:
    """Raise :class:`InputError` unless a backend runs engines of a precision, and INT8 with ``rest`` for the others."""
    if precision not in spec.precisions:
        others = [other.name for other in BACKENDS.values() if precision in other.precisions]
        raise InputError(
            f"--precision {precision} is for --backend {' and '.join(others)}; {spec.name} has "
            f"{', '.join(spec.precisions)}"
        )
    if rest is not None and precision != "int8":
        raise InputError(f"--rest is for --precision int8; remove it for {precision}")
    if rest is not None and rest not in spec.rests:
        raise InputError(f"--rest {rest}: engines of {spec.name} have {' or '.join(spec.rests)} beside INT8")


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """Options of the accuracy gate, which engines below fp32 must pass.

    Attributes:
        sentences: number of held-out sentences to ask; 0 skips the gate.
        dataset: data set in the RefHL-Seg layout; None for a phantom generated for the gate.
        split: the data set's split to ask; must not have been used for calibration.
        max_dice_drop: loss of mean Dice that must be excluded, above 0 and up to 1; see ``policy.failures``.
        accept: whether an engine that fails the gate is written anyway; its manifest records it.

    Raises:
        InputError: a value is out of range.
    """

    sentences: int = 500
    dataset: Path | None = None
    split: str = "test"
    max_dice_drop: float = MAX_DICE_DROP
    accept: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sentences <= MAX_GATE_SENTENCES:
            raise InputError(f"--gate-sentences {self.sentences}; give 0 (no gate) to {MAX_GATE_SENTENCES}")
        check_budget(self.max_dice_drop)


def check_gate_packages(gate: GateOptions) -> None:
    """Raise :class:`MissingDependencyError` unless the packages are installed that a gate needs, before it starts."""
    needed = ("matplotlib",) if gate.dataset else ("scipy", "matplotlib")
    absent = [name for name in needed if gate.sentences and importlib.util.find_spec(name) is None]
    if absent:
        raise MissingDependencyError(
            f"the accuracy gate needs {' and '.join(absent)}; pip install 'lsms-rt[gate]', or --gate-sentences 0 for "
            "an engine without a verdict, which its manifest records"
        )


def check_gate(precision: str, gate: GateOptions, report: Path | None) -> None:
    """Raise :class:`InputError` for options of a gate that an engine does not meet, or an INT8 engine without one."""
    if precision == "fp32" and (gate.dataset or gate.accept or report):
        raise InputError("--dataset, --accept and --report are for the accuracy gate of engines below fp32")
    if precision == "int8" and not (gate.sentences or gate.accept):
        raise InputError(
            "--gate-sentences 0 leaves an INT8 engine unjudged; add --accept to build without a verdict (recorded in "
            "the manifest)"
        )


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of ``build_engine``.

    Attributes:
        checkpoint: folder of the checkpoint; None for the bundled demo weights.
        backend: the runtime that the engine is for, a name in ``BACKENDS``.
        precision: arithmetic of the engine, one of the backend's ``precisions``.
        image_size: side of the square input in pixels; None for the checkpoint's own.
        max_batch: largest batch; the smallest is always 1, since ``predict`` processes one slice.
        opt_batch: batch that a plan is tuned for; None for ``max_batch``, at most 8.
        verify_slices: phantom slices on which the engine is compared with PyTorch; 0 skips the comparison.
        force: whether an existing engine is replaced.
        kernels: "triton" puts the project's kernels into a TensorRT engine in fp16 as plugins, "stock" does not,
            "auto" builds both where it can, and keeps them if they were faster on this GPU.
        plan: options of TensorRT's builders.
        calibration: folder written by ``lsms-rt calibrate``; for INT8 only, and required there.
        rest: precision of the layers of an INT8 engine that are not INT8, one of the backend's ``rests``; None for its
            default.
        gate: options of the accuracy gate.
        report: HTML file for the gate's report; None for ``NAME.report.html`` beside the engine.  That of a refused
            engine is named ``.refused.html`` in place of ``.html`` or ``.report.html``.

    Raises:
        InputError: the values contradict each other or are out of range.
    """

    checkpoint: Path | None = None
    backend: str = ONNXRUNTIME.name
    precision: str = "fp32"
    image_size: int | None = None
    max_batch: int = 8
    opt_batch: int | None = None
    verify_slices: int = 8
    force: bool = False
    kernels: str = "auto"
    plan: PlanOptions = field(default_factory=PlanOptions)
    calibration: Path | None = None
    rest: str | None = None
    gate: GateOptions = field(default_factory=GateOptions)
    report: Path | None = None

    def __post_init__(self) -> None:
        for name, choices in (("backend", BACKENDS), ("precision", PRECISIONS), ("kernels", KERNELS)):
            if getattr(self, name) not in choices:
                raise InputError(f"--{name} {getattr(self, name)}; choose from {', '.join(choices)}")
        check_precision(self.spec, self.precision, self.rest)
        self._check_int8()
        check_gate(self.precision, self.gate, self.report)
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise InputError(f"--max-batch {self.max_batch}; give 1 to {MAX_BATCH}")
        batch_profile(self.max_batch, self.opt_batch)
        if not 0 <= self.verify_slices <= MAX_VERIFY_SLICES:
            raise InputError(f"--verify-slices {self.verify_slices}; give 0 to {MAX_VERIFY_SLICES}")
        if self.variant is None:
            self._check_no_plan_options()

    def _check_int8(self) -> None:
        if (self.precision == "int8") != (self.calibration is not None):
            raise InputError(
                "--precision int8 needs --calibration DIR: lsms-rt calibrate ENGINE-or-CHECKPOINT DATASET -o DIR"
                if self.precision == "int8"
                else "--calibration is for --precision int8"
            )

    def _check_no_plan_options(self) -> None:
        if self.kernels == "triton":
            raise InputError("--kernels triton is for --backend tensorrt; other backends run stock operations")
        if self.opt_batch is not None:
            raise InputError("--opt-batch is for plans, --backend tensorrt and tensorrt-rtx")
        if self.plan != PlanOptions():
            raise InputError(
                "options of a plan (--target, --workspace ...) are for --backend tensorrt and tensorrt-rtx"
            )

    @property
    def half(self) -> bool:
        """Whether the graphs compute in float16, apart from INT8 layers."""
        return self.precision == "fp16" or self.floating == "fp16"

    @property
    def floating(self) -> str | None:
        """Precision of the layers of an INT8 engine that are not INT8; None for other engines."""
        return (self.rest or self.spec.rests[0]) if self.precision == "int8" else None

    @property
    def for_cpu(self) -> bool:
        """Whether the graphs are laid out for a CPU's caches; ``layers.read_graph`` undoes it."""
        return not self.spec.needs_gpu and self.precision in ("fp32", "bf16")

    @property
    def spec(self) -> BackendSpec:
        """The backend's row in the table."""
        return BACKENDS[self.backend]

    @property
    def gated(self) -> bool:
        """Whether the engine must pass the accuracy gate."""
        return self.precision != "fp32" and self.gate.sentences > 0

    @property
    def profile(self) -> tuple[int, int, int]:
        """The (min, opt, max) batch of a plan."""
        return batch_profile(self.max_batch, self.opt_batch)

    @property
    def variant(self) -> TensorRtVariant | None:
        """The TensorRT library that builds plans for the backend; None for other backends."""
        return VARIANTS.get(self.backend)


def skipped(options: GateOptions) -> dict[str, Any]:
    """Return what a manifest records if there was no gate."""
    return {"passed": False, "skipped": True, "accepted": options.accept}


def report_path(report: Path | None, output: Path, refused: bool = False) -> Path:
    """Return the file of the gate's report; that of a refused engine does not replace an existing engine's.

    Args:
        report: the file that was asked for; None for one beside the engine.
        output: the engine.
        refused: whether the engine was refused.
    """
    if report and not refused:
        return report
    kind = "refused" if refused else "report"
    name = report.name.removesuffix(".html") if report else output.name.removesuffix(".engine")
    return (report or output).with_name(f"{name}.{kind}.html")
