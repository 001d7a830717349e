"""What ``lsms-rt build-engine`` prints of a new engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.engine.manifest import open_directory
from lsms_rt.engine.registry import BACKENDS

if TYPE_CHECKING:
    from lsms_rt.engine.manifest import Manifest


def print_engine(manifest: Manifest, output: Path) -> None:
    size = f"{manifest.image_size}x{manifest.image_size}"
    print(f"{output}: {manifest.backend} {manifest.precision}, {manifest.preset}, {size}")
    if manifest.holds_host_code:
        print(
            f"version-compatible, so it brings code for the CPU: run it with --digest {open_directory(output).digest}"
        )
    if manifest.target_capabilities:
        print(f"for GPUs {', '.join(manifest.target_capabilities)}")


def print_accuracy(manifest: Manifest, reference: str, slices: str) -> None:
    accuracy = manifest.accuracy
    if "slices" in accuracy:
        print(
            f"engine vs. {reference} on {accuracy['slices']} {slices} slices: max. logit difference "
            f"{accuracy['max_logit_difference']:.1e}, masks equal on {accuracy['mask_agreement']:.4%} of pixels"
        )
        if manifest.backend not in accuracy["measured_with"]:
            print(f"(measured with {accuracy['measured_with']})")
    if isinstance(accuracy.get("plans"), str):
        print(f"plans {accuracy['plans']}")


def print_int8(manifest: Manifest) -> None:
    """Print which part is INT8, and what is known of its speed."""
    calibration = manifest.calibration or {}
    layers = sum(calibration["int8_layers"].values())
    print(
        f"INT8: {layers} layers, {calibration['macs_share']:.0%} of the dense multiply-accumulates; "
        f"the rest in {calibration['rest']}"
    )
    print(BACKENDS[manifest.backend].int8_note)


def print_gate(gate: dict[str, Any], report: Path) -> None:
    if gate.get("skipped"):
        print("accuracy gate skipped (--gate-sentences 0); recorded in the manifest")
        return
    verdict = "passed" if gate["passed"] else "failed" if gate["failures"] else "no verdict"
    accepted = ", accepted with --accept" if gate["accepted"] else ""
    print(f"accuracy gate: {verdict}{accepted}, on {gate['sentences']} sentences of {gate['data']}; report: {report}")
    if gate["dice"]:
        dice, reference = gate["dice"], gate.get("reference", "PyTorch")
        print(f"mean Dice {dice['reference']:.4f} in {reference}; {dice['engine']:.4f} in this engine")
    reasons = filter(None, (*gate["failures"], gate["unjudged"], gate.get("of") and f"measured on {gate['of']}"))
    for reason in (*reasons, *(f"not checked: {point}" for point in gate["unchecked"])):
        print(f"  {reason}")
