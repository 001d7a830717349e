"""A training run: network, heads, optimizer and averaged weights; it can be stopped and resumed at any update."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.model import LSMS
from lsms_rt.tokenizer import Tokenizer

from .batches import Batch, Sampler
from .heads import TrainingHeads
from .losses import step_loss
from .recipe import Recipe, Stage
from .sentences import draw_pair
from .validation import tokenize

STATE, LOG = "resume.pt", "training.jsonl"
SAVE_SECONDS = 300.0
# An update takes a second or two: what is longer was a pause (a stopped process), not training.
LONGEST_UPDATE = 60.0
# Updates in a row whose gradient is not finite: a few may come from one slice, so many come from the weights.
MOST_SKIPPED = 20
# Updates between two lines of the log; a run of few updates writes about so many lines.
LOG_EVERY, LOG_LINES = 50, 40
# How slowly the figures on the progress bar and in the log follow.
SMOOTH = 0.95


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run is: hours of training, or updates.  One of the two."""

    hours: float | None = None
    updates: int | None = None

    def progress(self, updates: int, seconds: float) -> float:
        """The share of the run that is done, 0 to 1."""
        if self.hours is not None:
            return min(1.0, seconds / (self.hours * 3600))
        assert self.updates is not None
        return min(1.0, updates / max(1, self.updates))


@dataclass(kw_only=True)
class Done:
    """What a run has done so far."""

    updates: int = 0
    examples: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Run:
    """The parts of a run and where it stands.

    Attributes:
        model: the network in training.
        heads: auxiliary heads.
        average: averaged weights: what is validated and shipped.
        recipe: what happens when.
        tokenizer: of the model.
        sampler: of training batches.
        folder: where state and log go.
        device: "cpu" or "cuda".
        done: updates, examples, seconds.
    """

    model: LSMS
    heads: TrainingHeads
    recipe: Recipe
    tokenizer: Tokenizer
    sampler: Sampler
    folder: Path
    device: torch.device
    done: Done = field(default_factory=Done)

    def __post_init__(self) -> None:
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads.to(self.device)
        self.average = copy.deepcopy(self.model)
        self.optimizer = self._optimizer()
        self.smooth: dict[str, float] = {}
        self._started = self._skipped = 0

    def _optimizer(self) -> torch.optim.AdamW:
        recipe = self.recipe
        text, decayed, plain = [], [], []
        for name, parameter in self._everything().named_parameters():
            if name.startswith("model.text_encoder"):
                text.append(parameter)
            elif parameter.ndim <= 1 or name.endswith((".scale1", ".scale2")) or "embedding" in name:
                plain.append(parameter)
            else:
                decayed.append(parameter)
        groups = (
            {"params": decayed, "factor": 1.0, "weight_decay": recipe.weight_decay},
            {"params": plain, "factor": 1.0, "weight_decay": 0.0},
            {"params": text, "factor": recipe.text_rate, "weight_decay": 0.0},
        )
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=recipe.learning_rate, betas=(0.9, recipe.beta2)
        )

    def _everything(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "heads": self.heads})

    def train(self, length: Length, after: Callable[[Stage], None] | None = None) -> None:
        """Train until ``length`` is reached; Ctrl-C leaves a state that :meth:`resume` continues.

        Args:
            length: of the whole run, from its first start.
            after: called after every update, with the stage; it may validate.  Its time is not training time.
        """
        from tqdm import tqdm

        self._started = self.done.updates
        # The seed depends on where the run resumes, so that it does not draw the same batches again.
        torch.manual_seed(self.recipe.seed + self.done.updates)
        every = LOG_EVERY if length.updates is None else max(1, min(LOG_EVERY, length.updates // LOG_LINES))
        saved = time.monotonic()
        bar = tqdm(total=1.0, initial=length.progress(self.done.updates, self.done.seconds), disable=None, leave=False,
                   bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")  # fmt: skip
        try:
            while (progress := length.progress(self.done.updates, self.done.seconds)) < 1.0:
                began = time.monotonic()
                stage = self.update(progress)
                self.done.seconds += min(time.monotonic() - began, LONGEST_UPDATE)
                bar.update(length.progress(self.done.updates, self.done.seconds) - bar.n)
                bar.set_description(stage.name)
                bar.set_postfix_str(f", {self.done.examples} examples, loss {self.smooth['loss']:.2f}")
                if self.done.updates % every == 0:
                    self._log_step(stage)
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if after is not None:
                    after(stage)
            if self.done.updates > self._started:
                self._log_step(stage)
        finally:
            bar.close()
            self.save()

    def update(self, progress: float) -> Stage:
        """One batch, one step of the optimizer; returns the stage.

        Raises:
            LsmsError: the gradients of many updates in a row are not finite.
        """
        recipe = self.recipe
        stage, rate = recipe.stage(progress)
        since = self.done.updates - self._started + 1
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"] * min(1.0, since / recipe.warmup)
        dense = self.sampler.rng.random() < stage.dense
        batch = self.sampler.batch(stage.shape, None if dense else recipe.mix)
        tokens = None if dense else tokenize(self.tokenizer, [sentence.text for sentence in batch.sentences])
        self.model.train()
        loss, parts = self._loss(batch, tokens)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._everything().parameters(), recipe.clip))
        self.done.updates += 1
        self.done.examples += len(batch.image)
        if not math.isfinite(norm):
            self._skip()
            return stage
        self._skipped = 0
        self.optimizer.step()
        keep = min(stage.average, since / (since + 19))
        move_average(self.average, self.model, keep)
        kind = "dense " if dense else ""
        figures = {f"{kind}{name}": value for name, value in parts.items()}
        figures |= {"loss": float(loss.detach()), "gradient norm": norm}
        for name, value in figures.items():
            self.smooth[name] = SMOOTH * self.smooth.get(name, value) + (1 - SMOOTH) * value
        return stage

    def _skip(self) -> None:
        """Leave the weights: one step along a gradient that is not finite would make all of them NaN, for good."""
        self._skipped += 1
        if self._skipped >= MOST_SKIPPED:
            raise LsmsError(
                f"the gradients of {MOST_SKIPPED} updates in a row, up to update {self.done.updates}, are not finite; "
                f"the weights before are in {self.folder}: look for values that are not finite in the images, or "
                "train with --device cpu, in float32"
            )

    def _loss(self, batch: Batch, tokens: tuple[Tensor, Tensor] | None) -> tuple[Tensor, dict[str, float]]:
        if self.device.type == "cpu":
            return step_loss(self.model, self.heads, batch, tokens, self.recipe.weights)
        moved = None if tokens is None else (tokens[0].to(self.device), tokens[1].to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16):
            return step_loss(self.model, self.heads, batch.to(self.device), moved, self.recipe.weights)

    def train_text(self, updates: int) -> float | None:
        """Teach the text encoder what sentences say, without images: seconds instead of hours.

        Returns the last loss; None where the data set's sentences have no known meaning.
        """
        parameters = [*self.model.text_encoder.parameters(), *self.heads.said.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=5e-4)
        value = None
        for update in range(updates):
            optimizer.param_groups[0]["lr"] = 5e-4 * min(1.0, (update + 1) / 100)
            chosen = self.sampler.rng.choice(len(self.sampler.places), 32, p=self.sampler.weight)
            pairs = [
                draw_pair(self.sampler.record(self.sampler.places[int(k)]), self.recipe.mix, self.sampler.rng)
                for k in chosen
            ]
            said = [sentence for pair in pairs if pair for sentence in pair]
            if not said or all(sentence.query is None for sentence in said):
                return None
            ids, mask = (t.to(self.device) for t in tokenize(self.tokenizer, [sentence.text for sentence in said]))
            loss = self.heads.sentence_loss(self.model.text_encoder(ids, mask), said)
            assert loss is not None
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            value = float(loss.detach())
        self.average.load_state_dict(self.model.state_dict())
        return value

    def save(self) -> None:
        """Write all that :meth:`resume` needs; a run that is killed meanwhile leaves the state before.

        Raises:
            InputError: it cannot be written, e.g. because the disk is full; the state before is still there.
        """
        state = {
            "everything": self._everything().state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": vars(self.done),
        }
        # An open file: with a path, torch reports a full disk as a RuntimeError without a reason.
        with atomic_file(self.folder / STATE) as part, part.open("wb") as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Continue from the folder's state.

        Raises:
            InputError: the state is of another network or damaged.
        """
        path = self.folder / STATE
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            self._everything().load_state_dict(state["everything"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done = Done(**state["done"])
        except (pickle.UnpicklingError, RuntimeError, KeyError, ValueError, TypeError, EOFError, OSError) as error:
            raise InputError(
                f"{path}: this run cannot be resumed ({type(error).__name__}); it was made with other options or is "
                "damaged: give the options of its first start, or a new folder"
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to the log."""
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _log_step(self, stage: Stage) -> None:
        figures = {name: round(value, 4) for name, value in sorted(self.smooth.items())}
        rate = self.optimizer.param_groups[0]["lr"]
        self.log(vars(self.done) | {"stage": stage.name, "size": stage.shape.size, "rate": rate} | figures)


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the averaged weights and running statistics to ``model``'s by ``1 - keep``."""
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)
