"""The commands that make engines: ``lsms-rt build-engine`` and ``lsms-rt calibrate``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError

if TYPE_CHECKING:
    from lsms_rt.engine.manifest import Manifest
    from lsms_rt.export.tensorrt import PlanOptions


def say(text: str) -> None:
    """A line for whoever watches; results go to stdout."""
    print(text, file=sys.stderr, flush=True)


def build_engine(options: argparse.Namespace) -> None:
    if options.from_engine is not None:
        _convert(options)
        return
    from lsms_rt.export.build import BuildOptions, build_engine
    from lsms_rt.export.gate import GateOptions

    demo = options.checkpoint is None
    names = (
        "checkpoint",
        "backend",
        "precision",
        "image_size",
        "max_batch",
        "opt_batch",
        "verify_slices",
        "force",
        "kernels",
        "calibration",
        "rest",
        "report",
    )
    gate = GateOptions(options.gate_sentences, options.dataset, options.split, options.max_dice_drop, options.accept)
    wanted = BuildOptions(**{name: getattr(options, name) for name in names}, plan=_plan_options(options), gate=gate)
    seen = sys.stderr.isatty()
    manifest = build_engine(wanted, options.output, say if seen else lambda _: None, _show if seen else None)
    accuracy = manifest.accuracy
    size = f"{manifest.image_size}x{manifest.image_size}"
    print(f"{options.output}: {manifest.backend} {manifest.precision}, {manifest.preset}, {size}")
    print(
        "no --checkpoint: these are the bundled demo weights, trained on synthetic CT"
        if demo
        else manifest.weights_note
    )
    if manifest.target_capabilities:
        print(f"for GPUs {', '.join(manifest.target_capabilities)}")
    if "slices" in accuracy:
        print(
            f"against PyTorch on {accuracy['slices']} phantom slices: logits within "
            f"{accuracy['max_logit_difference']:.1e}, masks equal on {accuracy['mask_agreement']:.4%} of pixels"
        )
        if manifest.backend not in accuracy["measured_with"]:
            print(f"(measured with {accuracy['measured_with']})")
    if isinstance(accuracy.get("plans"), str):
        print(f"the plans themselves are {accuracy['plans']}")
    if manifest.calibration:
        _print_int8(manifest)
    if manifest.gate:
        _print_gate(manifest.gate, wanted.report_path(options.output))


def _print_int8(manifest: Manifest) -> None:
    """What is INT8, and that this says nothing about speed."""
    calibration = manifest.calibration or {}
    layers = sum(calibration["int8_layers"].values())
    print(
        f"INT8: {layers} layers, {calibration['macs_share']:.0%} of the dense multiply-accumulates; "
        f"the rest in {calibration['rest']}"
    )
    if manifest.backend == "onnxruntime":
        print("ONNX Runtime's CPU has not run INT8 faster than fp32 where it was measured (docs/int8.md):")
        print("this engine is for judging accuracy, and for --from")
    else:
        print(
            "whether it is faster than fp16 has to be measured on the GPU that shall run it; it is not called so here"
        )


def _print_gate(gate: dict[str, Any], report: Path) -> None:
    if gate.get("skipped"):
        print("gate: not asked (--gate-sentences 0), which the manifest records")
        return
    verdict = "passed" if gate["passed"] else "refused" if gate["failures"] else "not judged"
    accepted = ", and accepted with --accept" if gate["accepted"] else ""
    print(f"gate: {verdict}{accepted}, on {gate['sentences']} sentences of {gate['data']}; report: {report}")
    if gate["dice"]:
        print(f"mean Dice {gate['dice']['reference']:.4f} in PyTorch, {gate['dice']['engine']:.4f} in this engine")
    reasons = filter(None, (*gate["failures"], gate["unjudged"], gate.get("of") and f"measured on {gate['of']}"))
    for reason in (*reasons, *(f"not checked: {point}" for point in gate["unchecked"])):
        print(f"  {reason}")


def calibrate(options: argparse.Namespace) -> None:
    from lsms_rt.calibration.calibrate import CalibrateOptions, calibrate
    from lsms_rt.engine.manifest import MANIFEST

    names = (
        "max_dice_drop",
        "margin",
        "slices",
        "probe",
        "held_out",
        "split",
        "held_out_split",
        "method",
        "by",
        "seed",
        "threads",
    )
    wanted = CalibrateOptions(**{name: getattr(options, name) for name in names})
    engine = options.source
    if not (engine / MANIFEST).is_file() and not (engine / "config.json").is_file():
        raise InputError(f"{engine} is neither an engine nor a checkpoint: it has no {MANIFEST} and no config.json")
    if not (engine / MANIFEST).is_file():
        engine = _fp32_engine(options)
    elif options.image_size is not None:
        raise InputError("--image-size is for a checkpoint; an engine has its own")
    done = calibrate(engine, options.dataset, options.output, wanted, say)
    if options.json:
        print(json.dumps(done.to_dict(), indent=2))
    else:
        print("\n".join(done.summary()))


def _fp32_engine(options: argparse.Namespace) -> Path:
    """The checkpoint as an fp32 engine, beside the recipe; made once for the same checkpoint, size and version."""
    from lsms_rt import __version__
    from lsms_rt.calibration.calibrate import check_output
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.engine.manifest import sha256
    from lsms_rt.export.build import BuildOptions, build_engine

    read_annotations(options.dataset)  # before minutes of work
    check_output(options.output)
    files = [path.read_bytes() for path in sorted(options.source.iterdir()) if path.is_file()]
    key = sha256("".join([*map(sha256, files), str(options.image_size), __version__]).encode())
    path: Path = options.output / f"fp32-{key[:12]}.engine"
    if not path.exists():
        build_engine(BuildOptions(options.source, image_size=options.image_size), path, say)
    return path


def _plan_options(options: argparse.Namespace) -> PlanOptions:
    from lsms_rt.export.tensorrt import PlanOptions

    names = ("workspace_mib", "timing_cache", "version_compatible", "hardware", "optimization_level")
    return PlanOptions(options.targets, **{name: getattr(options, name) for name in names})


def _convert(options: argparse.Namespace) -> None:
    """Plans from an engine that is there; PyTorch is not needed."""
    from lsms_rt.engine.manifest import batch_profile
    from lsms_rt.engine.tensorrt.variant import FLAVOURS
    from lsms_rt.export.plans import convert_engine

    if options.backend not in FLAVOURS:
        raise InputError(f"--from makes plans: give --backend {' or '.join(FLAVOURS)}")
    if options.dataset or options.calibration or options.accept or options.report or options.rest != "fp16":
        raise InputError(
            "--from asks no gate and makes nothing INT8: leave out --calibration, --rest, --dataset, --accept and "
            "--report"
        )
    if options.checkpoint or options.image_size or options.precision != "fp32" or options.kernels == "triton":
        raise InputError(
            "--from takes weights, size, precision and stock operations from the engine; leave out --checkpoint, "
            "--image-size, --precision and --kernels"
        )
    manifest = convert_engine(
        options.from_engine, FLAVOURS[options.backend], batch_profile(options.max_batch, options.opt_batch),
        _plan_options(options), options.output, force=options.force, say=say,
        progress=_show if sys.stderr.isatty() else None,
    )  # fmt: skip
    print(f"{options.output}: {manifest.backend} {manifest.precision}, {manifest.preset}, from {options.from_engine}")
    plans = manifest.accuracy["plans"]
    print(
        f"the plans are {plans}"
        if isinstance(plans, str)
        else f"plans against graphs on {plans['slices']} slices: logits within {plans['max_logit_difference']:.1e}"
    )


def _show(phase: str, step: int, steps: int) -> None:
    """One line of progress, written over and over."""
    print(f"\r{phase[:60]:60} {step}/{steps}", end="\n" if step == steps else "", file=sys.stderr, flush=True)
