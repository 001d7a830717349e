"""The accuracy gate of a build: the engine against PyTorch, on held-out questions, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.calibration.gate import gate_data, run_gate
from lsms_rt.calibration.report import gate_report
from lsms_rt.engine.backend import SentenceFeatures
from lsms_rt.engine.manifest import Manifest, sha256
from lsms_rt.errors import GateRefused, InputError
from lsms_rt.model import LSMS
from lsms_rt.segmenter import Segmenter
from lsms_rt.text import Tokenizer, Tokens

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
        if not 0 <= self.max_dice_drop <= 1:
            raise InputError(f"--max-dice-drop {self.max_dice_drop}; give 0 to 1, e.g. 0.005 for half a Dice point")


def gate(
    reference: LSMS, measured: Path, manifest: Manifest, options: GateOptions, place: Path, report: Path
) -> dict[str, Any]:
    """Run the engine in ``measured`` beside the ``reference``; write the ``report``; return what a manifest records.

    Raises :class:`GateRefused` where the engine is refused, or is INT8 and cannot be judged, unless it is accepted.
    """
    data = gate_data(options.dataset, options.split, options.sentences, place, manifest.image_size)
    tokenizer = Tokenizer((measured / "tokenizer.json").read_bytes(), manifest.max_tokens)
    truth = Segmenter.over(_OneModel(of_model(reference)), manifest, tokenizer)
    on_cpu = manifest.backend == "onnxruntime"
    with Segmenter(measured, device="cpu" if on_cpu else None) as engine:
        result = run_gate(truth, engine, data, options.max_dice_drop)
    must = bool(result.failures) or (bool(result.unjudged) and manifest.precision == "int8")
    accepted = options.accept and must
    page = gate_report(_words(manifest), data, result, options.max_dice_drop, accepted)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(page, encoding="utf-8")
    if must and not accepted:
        why = "; ".join(result.failures) or result.unjudged
        raise GateRefused(
            f"the gate refuses this {manifest.precision} engine: {why}. Report: {report}. "
            + ("--accept overrides it, on record; " if result.failures else "")
            + (
                "calibrate again with a smaller --max-dice-drop"
                if manifest.precision == "int8"
                else "take --precision fp32"
            )
        )
    return result.to_dict() | {
        "accepted": accepted,
        "max_dice_drop": options.max_dice_drop,
        "data": data.what,
        "data_digest": data.digest,
        "measured_with": measured_with(manifest),
        "report_sha256": sha256(page.encode()),
    }


def _words(manifest: Manifest) -> dict[str, Any]:
    """What a report says of an engine."""
    words = {
        "precision": manifest.precision,
        "preset": f"{manifest.preset}, {manifest.image_size}x{manifest.image_size}",
        "weights": f"{manifest.weights_note}, sha256 {manifest.weights_digest[:16]}",
        "run with": measured_with(manifest),
        "reference": "PyTorch, fp32, on the CPU",
        "threshold, confidence": f"{manifest.threshold}, {manifest.confidence}",
    }
    if manifest.calibration:
        words["calibration"] = f"{manifest.calibration['method']}, recipe {manifest.calibration['recipe_digest'][:16]}"
        words["INT8"] = f"{manifest.calibration['macs_share']:.1%} of the dense multiply-accumulates"
    return words | {f"sha256 of {name}": digest for name, digest in manifest.files.items()}


class _OneModel:
    """A whole PyTorch model as a backend: it has no separate text half, so the sentence goes along with the slice."""

    version = "reference"

    def __init__(self, answer: Reference) -> None:
        self.answer = answer

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        return SentenceFeatures({"tokens": tokens}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        tokens = Tokens(text.arrays["tokens"], text.mask)
        return np.stack([self.answer(image[None], tokens) for image in images])

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        return (self.segment(images, text) for images in batches)

    def close(self) -> None:
        pass
