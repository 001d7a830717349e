"""The accuracy gate of a build: the engine against PyTorch, on held-out questions, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.calibration.files import write_whole
from lsms_rt.calibration.gate import GateData, GateResult, run_gate
from lsms_rt.calibration.policy import check_budget
from lsms_rt.calibration.report import gate_report
from lsms_rt.engine.backend import OneByOne, SentenceFeatures
from lsms_rt.engine.manifest import Manifest, open_directory, sha256
from lsms_rt.errors import AccuracyGateError, InputError
from lsms_rt.model import LSMS
from lsms_rt.segmenter import Segmenter
from lsms_rt.tokenizer import Tokenizer, Tokens

from .plans import measured_with
from .verify import Reference, of_model


@dataclass(frozen=True)
class GateOptions:
    """``sentences`` of ``split`` of ``dataset`` (None: a phantom made for it; 0 sentences: no gate) may cost
    ``max_dice_drop``; ``accept`` writes the engine all the same, and on record."""

    sentences: int = 200
    dataset: Path | None = None
    split: str = "test"
    max_dice_drop: float = 0.005
    accept: bool = False

    def check(self) -> None:
        """Raise :class:`InputError` for what cannot be done."""
        if not 0 <= self.sentences <= 1_000_000:
            raise InputError(f"--gate-sentences {self.sentences}; give 0 (no gate) to 1000000")
        check_budget(self.max_dice_drop)


def gate(
    reference: LSMS,
    measured: Path,
    shipped: Manifest,
    not_run: str | None,
    data: GateData,
    options: GateOptions,
    refused_report: Path,
) -> tuple[dict[str, Any], str]:
    """Ask the engine in ``measured`` and the ``reference``; what a manifest records, and the report in HTML.

    Where plans cannot run here, ``measured`` are the graphs that they were made of, and ``not_run`` says why.
    Raises :class:`AccuracyGateError` where the engine is refused, or is INT8 and cannot be judged, unless it is accepted; the
    report is then written to ``refused_report``.
    """
    manifest = open_directory(measured).manifest
    tokenizer = Tokenizer((measured / "tokenizer.json").read_bytes(), manifest.max_tokens)
    truth = Segmenter.over(_OneModel(of_model(reference)), manifest, tokenizer)
    on_cpu = manifest.backend == "onnxruntime"
    with Segmenter(measured, device="cpu" if on_cpu else None) as engine:
        result = run_gate(truth, engine, data, options.max_dice_drop)
    must = bool(result.failures) or (bool(result.unjudged) and manifest.precision == "int8")
    accepted = options.accept and must
    words = _words(shipped, measured_with(manifest))
    if not_run:
        words["measured"] = f"the graphs that the plans were made of; the plans were not run: {not_run}"
    page = gate_report(words, data, result, options.max_dice_drop, accepted)
    if must and not accepted:
        write_report(refused_report, page)
        raise AccuracyGateError(_refusal(result, shipped.precision, refused_report))
    record = result.to_dict() | {
        "accepted": accepted,
        "max_dice_drop": options.max_dice_drop,
        "data": data.description,
        "data_digest": data.digest,
        "measured_with": measured_with(manifest),
        "report_sha256": sha256(page.encode()),
    }
    return record | ({"of": f"the graphs; the plans were not run: {not_run}"} if not_run else {}), page


def skipped(options: GateOptions) -> dict[str, Any]:
    """What a manifest records where no gate was asked for."""
    return {"passed": False, "skipped": True, "accepted": options.accept}


def write_report(path: Path, page: str) -> None:
    """The report, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)


def _refusal(result: GateResult, precision: str, report: Path) -> str:
    if not result.failures:
        return (
            f"the gate cannot judge this INT8 engine: {result.unjudged}. Report: {report}. --accept writes it all the "
            "same, on record"
        )
    fix = "calibrate again with a smaller --max-dice-drop" if precision == "int8" else "take --precision fp32"
    return (
        f"the gate refuses this {precision} engine: {'; '.join(result.failures)}. Report: {report}. {fix}, or --accept "
        "overrides it, on record"
    )


def _words(manifest: Manifest, run_with: str) -> dict[str, Any]:
    """What a report says of an engine."""
    words = {
        "precision": manifest.precision,
        "preset": f"{manifest.preset}, {manifest.image_size}x{manifest.image_size}",
        "weights": f"{manifest.weights_note}, sha256 {manifest.weights_digest[:16]}",
        "run with": run_with,
        "reference": "PyTorch, fp32, on the CPU",
        "threshold, confidence": f"{manifest.threshold}, {manifest.confidence}",
    }
    if manifest.calibration:
        words["calibration"] = f"{manifest.calibration['method']}, recipe {manifest.calibration['recipe_digest'][:16]}"
        words["INT8"] = f"{manifest.calibration['macs_share']:.1%} of the dense multiply-accumulates"
    return words | {f"sha256 of {name}": digest for name, digest in manifest.files.items()}


class _OneModel(OneByOne):
    """A whole PyTorch model as a backend: it has no separate text half, so the sentence goes along with the slice."""

    version = "reference"

    def __init__(self, answer: Reference) -> None:
        self.answer = answer

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        return SentenceFeatures({"tokens": tokens}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        tokens = Tokens(text.arrays["tokens"], text.mask)
        return np.stack([self.answer(image[None], tokens) for image in images])

    def close(self) -> None:
        pass
