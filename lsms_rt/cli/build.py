"""``lsms-rt build-engine``: build an engine directory from a checkpoint, or plans from an engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lsms_rt.engine.manifest import MAX_BATCH, open_directory
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.engine.tensorrt.variant import HARDWARE, VARIANTS
from lsms_rt.errors import InputError
from lsms_rt.export.directory import check_output, check_source
from lsms_rt.export.options import (
    AUTO,
    KERNELS,
    MAX_GATE_SENTENCES,
    MAX_VERIFY_SLICES,
    PRECISIONS,
    REST_PRECISIONS,
    BuildOptions,
    GateOptions,
    PlanOptions,
    report_path,
)

from .arguments import (
    add_digest,
    add_image_size,
    add_max_dice_drop,
    add_names,
    calibration_path,
    comma_list,
    engine_path,
    options_from,
    whole_number,
)
from .build_texts import print_accuracy, print_engine, print_gate, print_int8
from .parser import Command
from .terminal import is_interactive, show_step, status

if TYPE_CHECKING:
    from lsms_rt.export.auto import Choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = BuildOptions
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.engine", help="folder to write")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the bundled demo weights)"
    )
    parser.add_argument(
        "--from", type=engine_path, dest="from_engine", metavar="ENGINE",
        help="build from this engine of graphs, without PyTorch: plans, or the same graphs for another backend "
        "(default: build from the checkpoint)",
    )  # fmt: skip
    add_digest(parser, "the engine of --from")
    parser.add_argument(
        "--backend",
        choices=(*BACKENDS, AUTO),
        default=defaults.backend,
        help="runtime that the engine is for; auto: what runs fastest here, measured",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS,
        help=f"arithmetic of the engine (default: {defaults.precision}; with --from, the engine's)",
    )  # fmt: skip
    add_image_size(parser, defaults.image_size, " (default: the checkpoint's)")
    parser.add_argument(
        "--max-batch", type=whole_number(1, MAX_BATCH), default=defaults.max_batch, metavar="N",
        help="largest batch of slices",
    )  # fmt: skip
    parser.add_argument(
        "--opt-batch", type=whole_number(1, MAX_BATCH), metavar="N",
        help="batch that plans are tuned for (default: --max-batch, at most 8)",
    )  # fmt: skip
    parser.add_argument(
        "--kernels", choices=KERNELS, default=defaults.kernels,
        help="tensorrt in fp16: this project's kernels as plugins (triton), or stock operations; auto: both are built "
        "where possible, and the faster is kept",
    )  # fmt: skip
    parser.add_argument(
        "--verify-slices", type=whole_number(0, MAX_VERIFY_SLICES), default=defaults.verify_slices, metavar="N",
        help="phantom slices on which the engine is compared with PyTorch; 0: no comparison",
    )  # fmt: skip
    add_names(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing engine")
    _add_plan(parser.add_argument_group("plans", "for --backend tensorrt and tensorrt-rtx"))
    _add_int8(parser.add_argument_group("INT8", "for --precision int8"))
    _add_gate(
        parser.add_argument_group(
            "accuracy gate",
            "below fp32: the engine is rejected (exit code 4) if its answers to held-out sentences are worse "
            "than PyTorch's in fp32",
        )
    )


def _add_plan(group: argparse._ArgumentGroup) -> None:
    defaults = PlanOptions
    group.add_argument(
        "--target", type=comma_list, default=defaults.targets, dest="targets", metavar="SM,SM",
        help="tensorrt-rtx: GPUs to support, e.g. sm_86,sm_89 (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--workspace", type=whole_number(1, 1 << 20), dest="workspace_mib", metavar="MIB",
        help="scratch memory per layer, in MiB (default: no limit)",
    )  # fmt: skip
    group.add_argument(
        "--timing-cache", type=Path, metavar="FILE",
        help="tensorrt: kernel timings to read and update (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--hardware", choices=tuple(HARDWARE), default=defaults.hardware,
        help="tensorrt: hardware compatibility with other GPUs",
    )  # fmt: skip
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="tensorrt: also run with newer versions with the same major number",
    )
    group.add_argument(
        "--optimization-level", type=whole_number(0, 5), metavar="N",
        help="tensorrt: builder optimization level (default: TensorRT's own)",
    )  # fmt: skip


def _add_int8(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibration", type=calibration_path, metavar="DIR",
        help="folder that lsms-rt calibrate wrote; 'demo' is the one of the demo weights (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--rest", choices=REST_PRECISIONS,
        help="arithmetic of the layers that are not INT8 (default: fp16; openvino: fp32)",
    )  # fmt: skip


def _add_gate(group: argparse._ArgumentGroup) -> None:
    defaults = GateOptions
    group.add_argument(
        "--dataset", type=Path, metavar="DIR",
        help="data set in the RefHL-Seg layout (default: a phantom generated for the gate)",
    )  # fmt: skip
    group.add_argument(
        "--split", default=defaults.split,
        help="split of --dataset; the engine must not have been calibrated on it",
    )  # fmt: skip
    group.add_argument(
        "--gate-sentences", type=whole_number(0, MAX_GATE_SENTENCES), default=defaults.sentences, dest="sentences",
        metavar="N", help="number of sentences; 0: no gate",
    )  # fmt: skip
    add_max_dice_drop(group, defaults.max_dice_drop)
    group.add_argument("--accept", action="store_true", help="write a rejected engine anyway; its manifest records it")
    group.add_argument(
        "--report", type=Path, metavar="FILE",
        help="HTML report to write (default: NAME.report.html); that of a refused engine ends in .refused.html",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    if arguments.from_engine is not None:
        _from_engine(arguments)
        return
    if arguments.digest is not None:
        raise InputError("--digest is that of the engine that --from reads; add --from, or remove it")
    from lsms_rt.export.build import build_engine

    plan, gate = options_from(PlanOptions, arguments), options_from(GateOptions, arguments)
    output = arguments.output
    if arguments.backend == AUTO:
        from lsms_rt.export.auto import choose

        check_output(output, arguments.force, arguments.report)
        _check_calibration(arguments)
        recipe, rest = arguments.calibration, arguments.rest
        _take(choose(arguments.checkpoint, arguments.image_size, arguments.precision, recipe, rest), arguments)
    arguments.precision = arguments.precision or BuildOptions.precision
    options = options_from(BuildOptions, arguments, plan=plan, gate=gate)
    interactive = is_interactive()
    manifest = build_engine(
        options, output, status if interactive else lambda _: None, show_step if interactive else None
    )
    print_engine(manifest, output)
    if options.checkpoint is None:
        print("no --checkpoint: these are the bundled demo weights, trained on synthetic CT")
    else:
        print(manifest.weights_note)
    print_accuracy(manifest, "PyTorch", "phantom")
    if manifest.calibration:
        print_int8(manifest)
    if manifest.gate:
        print_gate(manifest.gate, report_path(options.report, output))


def _check_calibration(arguments: argparse.Namespace) -> None:
    if (arguments.precision == "int8") != (arguments.calibration is not None):
        raise InputError("--precision int8 and --calibration DIR go together; give both, or neither")


def _take(choice: Choice, arguments: argparse.Namespace) -> None:
    """Put what ``--backend auto`` chose in the place of what was asked for, and say it."""
    print(f"auto: {choice.why}")
    arguments.backend, arguments.precision, arguments.rest = choice.backend, choice.precision, choice.rest


def _from_engine(arguments: argparse.Namespace) -> None:
    """Build from an existing engine; PyTorch is not needed."""
    if arguments.checkpoint or arguments.image_size or arguments.calibration or arguments.kernels == "triton":
        raise InputError(
            "--from uses the engine's weights, size, INT8 layers and stock operations; remove --checkpoint, "
            "--image-size, --calibration and --kernels"
        )
    if arguments.backend in VARIANTS:
        _convert(arguments)
    else:
        _retarget(arguments)


def _convert(arguments: argparse.Namespace) -> None:
    """Build plans of an engine's graphs."""
    from lsms_rt.engine.manifest import batch_profile
    from lsms_rt.export.plans import convert_engine

    if arguments.dataset or arguments.accept or arguments.report or arguments.rest or arguments.precision:
        raise InputError(
            "--from builds plans in the engine's precision and runs no accuracy gate; remove --precision, --rest, "
            "--dataset, --accept and --report"
        )
    output = arguments.output
    manifest = convert_engine(
        arguments.from_engine, VARIANTS[arguments.backend], batch_profile(arguments.max_batch, arguments.opt_batch),
        options_from(PlanOptions, arguments), output, digest=arguments.digest, force=arguments.force, say=status,
        progress=show_step if is_interactive() else None,
    )  # fmt: skip
    print_engine(manifest, output)
    print(f"from {arguments.from_engine}")
    plans = manifest.accuracy["plans"]
    if isinstance(plans, str):
        print(f"plans {plans}")
    else:
        print(f"plan vs. ONNX on {plans['slices']} slices: max. logit difference {plans['max_logit_difference']:.1e}")


def _retarget(arguments: argparse.Namespace) -> None:
    """Write the same graphs as an engine of another backend."""
    from lsms_rt.export.retarget import RetargetOptions, retarget_engine

    if options_from(PlanOptions, arguments) != PlanOptions() or arguments.opt_batch is not None:
        raise InputError("options of a plan (--target, --opt-batch ...) are for --backend tensorrt and tensorrt-rtx")
    if arguments.max_batch != BuildOptions.max_batch or arguments.verify_slices != BuildOptions.verify_slices:
        raise InputError(
            "--from keeps the engine's largest batch, and compares on the bundled slices; remove --max-batch and "
            "--verify-slices"
        )
    source, output = arguments.from_engine, arguments.output
    if arguments.backend == AUTO:
        from lsms_rt.export.auto import choose_for

        check_output(output, arguments.force, arguments.report, source)
        engine = open_directory(source, arguments.digest)
        check_source(engine)
        _take(choose_for(engine, arguments.precision, arguments.rest), arguments)
    options = options_from(RetargetOptions, arguments, gate=options_from(GateOptions, arguments))
    manifest = retarget_engine(source, output, options, status if is_interactive() else lambda _: None)
    print_engine(manifest, output)
    print(f"from {source}")
    print_accuracy(manifest, "the one it was made of", "bundled")
    if manifest.calibration:
        print_int8(manifest)
    if manifest.gate:
        print_gate(manifest.gate, report_path(options.report, output))


COMMAND = Command(
    name="build-engine", help="build an engine directory from a checkpoint", add_arguments=add_arguments, run=run
)
