"""Train, validate, keep the best weights, choose thresholds: what every kind of training has in common."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.model import LSMS

from .recipe import Stage
from .run import Length, Run
from .validation import Validation, choose_operating_point, figures

# Validation may take this share of the time at most.
VALIDATION_SHARE = 0.05
FIRST_SECONDS = 60.0
# Weights are compared by Dice at this specificity.
JUDGED_AT = "at_0.92"
FIGURES = "validation.json"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A finished training.

    Attributes:
        model: the best averaged weights, in eval mode on the CPU, with their thresholds in the config.
        operating_point: how the thresholds were chosen, and what they give on validation sentences.
        best: the validation figures of these weights.
        updates: at which update they were taken.
    """

    model: LSMS
    operating_point: dict[str, Any]
    best: dict[str, Any]
    updates: int


def fit(
    run: Run, validation: Validation, length: Length, tokenizer: Path, thresholds: Validation | None = None
) -> Fitted:
    """Train ``run`` to its ``length``; leaves the best weights so far in the run's folder at every validation.

    Args:
        run: new or resumed.
        validation: held-out sentences.
        length: of the whole run.
        tokenizer: the file that goes into the checkpoint.
        thresholds: the sentences that the thresholds are chosen on; None for ``validation``.  A quantile of few
            negative sentences is a poor one, so it should hold many.
    """
    keeper = _Keeper(run, validation, tokenizer)
    run.log({"start": run.done.updates, "recipe": asdict(run.recipe)})
    if run.done.updates == 0:
        keeper.validate("start")
    run.train(length, after=keeper.after_update)
    keeper.validate("end")
    return keeper.finish(thresholds or validation)


class _Keeper:
    """Validates now and then, and keeps the best averaged weights with their figures in ``best/``."""

    def __init__(self, run: Run, validation: Validation, tokenizer: Path) -> None:
        self.run, self.validation, self.tokenizer = run, validation, tokenizer
        self.folder = run.folder / "best"
        # a guess, until the first validation is measured
        self.took = FIRST_SECONDS
        self.since = time.monotonic()

    def after_update(self, stage: Stage) -> None:
        if time.monotonic() - self.since > self.took / VALIDATION_SHARE:
            self.validate(stage.name)

    def validate(self, stage: str) -> None:
        began = time.monotonic()
        model = copy.deepcopy(self.run.average).cpu().eval()
        found = figures(self.validation.scores(model)) | self.validation.sight(model)
        self.run.log(vars(self.run.done) | {"stage": stage, "validation": found})
        before = self.best()
        if before is None or judged(found) >= judged(before["validation"]):
            # Weights and figures appear together: a killed run must not leave figures of other weights.
            with work_folder(self.folder) as work:
                model.save_pretrained(work / "best", tokenizer=self.tokenizer)
                facts = {"updates": self.run.done.updates, "validation": found}
                (work / "best" / FIGURES).write_text(json.dumps(facts))
                move_folder(work / "best", self.folder)
        self.since = time.monotonic()
        self.took = self.since - began

    def best(self) -> dict[str, Any] | None:
        """Update and figures of the best weights so far, by this run or the one that it continues."""
        file = self.folder / FIGURES
        found: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
        return found

    def finish(self, thresholds: Validation) -> Fitted:
        best = self.best()
        assert best is not None
        model = LSMS.from_pretrained(self.folder)
        point = choose_operating_point(thresholds.scores(model), self.run.recipe.specificity)
        confidence = float(torch.sigmoid(torch.tensor(point["confidence_logit"])))
        model.config = replace(model.config, threshold=point["threshold"], confidence=confidence)
        return Fitted(model=model, operating_point=point, best=best["validation"], updates=best["updates"])


def judged(found: dict[str, Any]) -> float:
    """The figure that weights are compared by: Dice at a fixed specificity, or with every mask kept where no sentence
    of the validation split is false."""
    value = found[JUDGED_AT]["dice"] if JUDGED_AT in found else found["dice_gate_open"]
    return float(value or 0.0)
