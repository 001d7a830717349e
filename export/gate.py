"""The accuracy gate of a build: the engine against its reference, on held-out sentences, before anything is written."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import write_text
from lsms_rt.calibration.gate import GateData, GateResult, gate_data, run_gate
from lsms_rt.calibration.policy import only_bounds_exceeded
from lsms_rt.calibration.recipe import Recipe
from lsms_rt.calibration.report import gate_report
from lsms_rt.digest import sha256
from lsms_rt.engine import open_backend
from lsms_rt.engine.backend import OneByOne, SentenceFeatures
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.registry import BACKENDS, ONNXRUNTIME
from lsms_rt.errors import AccuracyGateError, InputError
from lsms_rt.segmenter import Segmenter
from lsms_rt.sentences import open_reader
from lsms_rt.tokenizer import Tokens

from .directory import Draft, measured_with

# alias of version 0.1
from .options import GateOptions as GateOptions
from .references import Reference

# The last line of the report of a refused engine.
REFUSALS = "<!-- refused: {} -->\n"
HALF_ON_CPU = (
    "rounding in half precision: ONNX Runtime's CPU computes float16 graphs in float32; compare lsms-rt evaluate on "
    "the device that will run the engine"
)


def held_out_data(options: GateOptions, recipe: Recipe | None, folder: Path, image_size: int) -> GateData:
    """Return the rows that the gate asks about; a phantom is generated in ``folder``.

    Raises:
        InputError: the data set cannot be used, or the recipe was made with some of its slices.
    """
    data = gate_data(options.dataset, options.split, options.sentences, folder, image_size)
    if recipe is None:
        return data
    seen = recipe.overlap(data.images)
    if seen:
        raise InputError(
            f"{seen} of the gate's {len(data.images)} slices were used to calibrate, so they prove nothing; choose "
            "another --split or --dataset"
        )
    seen = recipe.overlap_of_cases(data.case_ids)
    if seen:
        raise InputError(
            f"{seen} of the gate's {len(data.case_ids)} cases have the case_id of a case that was used to calibrate, "
            "and slices of the same patient prove nothing; choose another --split or --dataset or, if they are other "
            "patients, give them other ids"
        )
    return data


def run(
    reference: Reference, measured: Draft, shipped: Draft, data: GateData, options: GateOptions, refused_report: Path
) -> tuple[dict[str, Any], str]:
    """Ask the engine and the reference the same sentences, and judge the engine.

    Args:
        reference: the PyTorch model, or the engine that the measured one was made of.
        measured: the engine to ask: ``shipped`` or, for plans that do not run on this machine, its graphs.
        shipped: the engine that is built.
        data: the held-out rows.
        options: of the gate.
        refused_report: the file for the report of a refused engine.

    Returns:
        What the manifest records as ``gate``, and the report in HTML.

    Raises:
        AccuracyGateError: the engine loses too much accuracy, or is INT8 and there is not enough data to judge it; not
            with ``options.accept``.
    """
    manifest, not_run = measured.manifest, shipped.not_run
    directory = measured.open()
    reader = open_reader(directory)
    # Sentences of a data set are all asked.
    asked = partial(
        Segmenter.from_backend, manifest=manifest, tokenizer=reader.tokenizer, contract=reader.contract,
        on_unknown="warn",
    )  # fmt: skip
    expected = asked(_ModelBackend(reference))
    backend = open_backend(directory, device=BACKENDS[manifest.backend].exact_device)
    tuned = reference.tuned(manifest.image_size, manifest.max_tokens)
    with tuned, asked(backend) as engine:
        result = run_gate(expected, engine, data, options.max_dice_drop)
    half = "fp16" in (manifest.precision, manifest.rest)
    if half and manifest.backend == ONNXRUNTIME.name:
        result.unchecked.append(HALF_ON_CPU)
    earlier = earlier_refusals(refused_report)
    fails = bool(result.failures) or (bool(result.unjudged) and manifest.precision == "int8")
    accepted = options.accept and fails
    facts = _facts(shipped.manifest, measured_with(manifest)) | {"reference": reference.name}
    if not_run:
        facts["measured"] = f"the graphs that the plans were made of; the plans were not run: {not_run}"
    facts["builds of this name that were rejected before"] = earlier
    page = gate_report(facts, data, result, options.max_dice_drop, accepted)
    if fails and not accepted:
        write_report(refused_report, page + REFUSALS.format(earlier + 1))
        raise AccuracyGateError(_refusal(result, manifest.precision, options.max_dice_drop, refused_report))
    record = result.to_dict() | {
        "accepted": accepted,
        "earlier_refusals": earlier,
        "max_dice_drop": options.max_dice_drop,
        "data": data.description,
        "data_digest": data.digest,
        "measured_with": measured_with(manifest),
        "reference": reference.name,
        "report_sha256": sha256(page.encode()),
    }
    return record | ({"of": f"the graphs; the plans were not run: {not_run}"} if not_run else {}), page


def earlier_refusals(report: Path) -> int:
    """Return how often an engine of this name was refused, by the report of the last one; 0 if there is none.

    A build that is repeated until it passes proves less than its figures say.
    """
    if not report.is_file():
        return 0
    found = re.findall(REFUSALS.format(r"(\d{1,6})"), report.read_text(encoding="utf-8", errors="replace"))
    return int(found[-1]) if found else 0


def write_report(path: Path, page: str) -> None:
    """Write the report, which shows slices, for its owner only; its folder is created if it does not exist."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_text(path, page, private=True)


def _refusal(result: GateResult, precision: str, max_dice_drop: float, report: Path) -> str:
    if not result.failures:
        return (
            f"the accuracy gate has not enough data to judge this INT8 engine: {result.unjudged}. Report: {report}. "
            "Add --accept to write the engine anyway (recorded in the manifest)"
        )
    fix = "calibrate again with a smaller --max-dice-drop" if precision == "int8" else "use --precision fp32"
    if only_bounds_exceeded(result.comparison, max_dice_drop):
        more = "ask more sentences (--gate-sentences) or more cases, as the measured loss is within the budget"
        fix = f"{more}; or {fix}"
    return (
        f"the accuracy gate rejected this {precision} engine: {'; '.join(result.failures)}. Report: {report}. To fix "
        f"it, {fix}; or add --accept to write the engine anyway (recorded in the manifest)"
    )


def _facts(manifest: Manifest, run_with: str) -> dict[str, Any]:
    """Return the facts about an engine that a report lists."""
    facts = {
        "precision": manifest.precision,
        "preset": f"{manifest.preset}, {manifest.image_size}x{manifest.image_size}",
        "weights": f"{manifest.weights_note}, sha256 {manifest.weights_digest[:16]}",
        "run with": run_with,
        "threshold, confidence": f"{manifest.threshold}, {manifest.confidence}",
    }
    if manifest.calibration:
        facts["calibration"] = f"{manifest.calibration['method']}, recipe {manifest.calibration['recipe_digest'][:16]}"
        facts["INT8"] = f"{manifest.calibration['macs_share']:.1%} of the dense multiply-accumulates"
    return facts | {f"sha256 of {name}": digest for name, digest in manifest.files.items()}


class _ModelBackend(OneByOne):
    """A reference as a backend.  It has no separate text half, so the features are the tokens."""

    version = "reference"

    def __init__(self, model: Reference) -> None:
        self.model = model

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        return SentenceFeatures({"tokens": tokens}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        tokens = Tokens(text.arrays["tokens"], text.mask)
        return np.stack([self.model(image[None], tokens) for image in images])

    def close(self) -> None:
        pass
