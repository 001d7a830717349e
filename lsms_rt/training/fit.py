"""Train, validate, keep the best weights, choose thresholds: what every kind of training has in common."""

from __future__ import annotations

import copy
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lsms_rt.atomic import move_folder, unwritable, work_folder
from lsms_rt.errors import MachineError
from lsms_rt.model import LSMS
from lsms_rt.sentences import TABLE

from .recipe import Stage
from .run import Length, Run
from .validation import Validation, choose_operating_point, figures

# Validation may take this share of the time at most.
VALIDATION_SHARE = 0.05
FIRST_SECONDS = 60.0
# Where no terminal shows the progress bar, a line is written this often.
LINE_SECONDS = 60.0
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
    run: Run,
    validation: Validation,
    length: Length,
    tokenizer: Path,
    *,
    thresholds: Validation | None = None,
    status: Callable[[str], None] | None = None,
) -> Fitted:
    """Train ``run`` to its ``length``; leaves the best weights so far in the run's folder at every validation.

    Args:
        run: new or resumed.
        validation: held-out sentences.
        length: of the whole run.
        tokenizer: the file that goes into the checkpoint.
        thresholds: the sentences that the thresholds are chosen on; None for ``validation``.  A quantile of few
            negative sentences is a poor one, so it should hold many.
        status: receives one line per validation, and one per minute if standard error is not a terminal.

    Raises:
        InputError: state or weights cannot be written; what was written before is still there.
    """
    keeper = _Keeper(run, validation, length, tokenizer, status)
    run.log({"start": run.done.updates, "recipe": asdict(run.recipe)})
    if run.done.updates == 0:
        keeper.validate("start")
    run.train(length, after=keeper.after_update)
    keeper.validate("end")
    return keeper.finish(thresholds or validation)


class _Keeper:
    """Validates now and then, and keeps the best averaged weights with their figures in ``best/``."""

    def __init__(
        self,
        run: Run,
        validation: Validation,
        length: Length,
        tokenizer: Path,
        status: Callable[[str], None] | None,
    ) -> None:
        self.run, self.validation, self.length, self.tokenizer, self.status = run, validation, length, tokenizer, status
        self.folder = run.folder / "best"
        # a guess, until the first validation is measured
        self.took = FIRST_SECONDS
        self.since = self.last_line = time.monotonic()

    def after_update(self, stage: Stage) -> None:
        now = time.monotonic()
        if now - self.since > self.took / VALIDATION_SHARE:
            self.validate(stage.name)
        elif self.status is not None and now - self.last_line > LINE_SECONDS and not sys.stderr.isatty():
            self.status(progress_line(self.run, self.length, stage.name))
            self.last_line = now

    def validate(self, stage: str) -> None:
        began = time.monotonic()
        model = copy.deepcopy(self.run.average).cpu().eval()
        found = figures(self.validation.scores(model)) | self.validation.sight(model)
        self.run.log(vars(self.run.done) | {"stage": stage, "validation": found})
        before = self.best()
        if before is None or judged(found) >= judged(before["validation"]):
            figures_too = {FIGURES: json.dumps({"updates": self.run.done.updates, "validation": found})}
            save_checkpoint(model, self.folder, self.tokenizer, figures_too)
        if self.status is not None:
            # The progress bar makes way for the line.
            with tqdm.external_write_mode():
                self.status(line_of(self.run.done.updates, stage, found))
        self.since = self.last_line = time.monotonic()
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


def save_checkpoint(model: LSMS, folder: Path, tokenizer: Path, texts: dict[str, str]) -> None:
    """Write a checkpoint and some texts, as a whole or not at all.

    Args:
        model: the network.
        folder: the checkpoint; replaced if it exists.
        tokenizer: a ``tokenizer.json``; the table of words beside it is copied, too.
        texts: file name -> content.

    Raises:
        InputError, MachineError: it cannot be written; the checkpoint that was there is kept.
    """
    from safetensors import SafetensorError

    try:
        with work_folder(folder) as work:
            new = work / "new"
            model.save_pretrained(new, tokenizer=tokenizer)
            table = tokenizer.with_name(TABLE)
            if table.is_file():
                shutil.copyfile(table, new / TABLE)
            for name, text in texts.items():
                (new / name).write_text(text, encoding="utf-8")
            move_folder(new, folder)
    except OSError as error:
        raise unwritable(error) from error
    except SafetensorError as error:
        # its only reason at this place is a file that cannot be written
        raise MachineError(f"the weights cannot be written ({error}); free some disk space") from error


def progress_line(run: Run, length: Length, stage: str) -> str:
    """Return one line about where a run stands: update, share that is done, loss, training time that is left."""
    done = length.progress(run.done.updates, run.done.seconds)
    left = run.done.seconds * (1 - done) / done if done else None
    return f"update {run.done.updates} ({stage}): {done:.0%} done, loss {run.smooth.get('loss', math.nan):.2f}" + (
        "" if left is None else f", {tqdm.format_interval(left)} left"
    )


def line_of(updates: int, stage: str, found: dict[str, Any]) -> str:
    """One line about a validation: Dice and missed sentences at the specificity that weights are judged at."""
    at = found.get(JUDGED_AT)
    share = JUDGED_AT.removeprefix("at_")
    if at is None:
        return (
            f"update {updates} ({stage}): Dice {found['dice_gate_open'] or 0:.3f}, no false sentence to judge silence"
        )
    return (
        f"update {updates} ({stage}): at specificity {share} Dice {at['dice'] or 0:.3f}, missed {at['missed']:.0%}; "
        f"presence AUC {found['presence_auc']:.3f}"
    )


def judged(found: dict[str, Any]) -> float:
    """The figure that weights are compared by: Dice at a fixed specificity, or with every mask kept where no sentence
    of the validation split is false."""
    value = found[JUDGED_AT]["dice"] if JUDGED_AT in found else found["dice_gate_open"]
    return float(value or 0.0)
