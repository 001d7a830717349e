"""Training of the demo weights: ``python -m lsms_rt.training.train --out runs/demo``.

Small images first, the final size last: a 128x128 crop around the liver costs a quarter of a 256x256 slice, and the
network learns words there.  Stops and resumes at any checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lsms_rt.atomic import atomic_file
from lsms_rt.bench.provenance import provenance
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler, attribute_classes
from .corpus import read_corpus, write_corpus
from .losses import Auxiliary, total_loss
from .validate import validate
from .vocabulary import write_vocabulary

TRAIN_SEED, VALIDATION_SEED = 5_000_000, 6_000_000  # case seeds; RefHL-Phantom's own begin at seed * 1000


@dataclass(frozen=True)
class Phase:
    """``updates`` of ``slices`` slices, two sentences each, at ``size`` pixels; a share ``full`` is not cropped."""

    updates: int
    size: int
    slices: int
    full: float


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run, recorded with its results."""

    phases: tuple[Phase, ...] = (Phase(6000, 128, 8, 0.15), Phase(4000, 160, 8, 0.1), Phase(2000, 256, 6, 1.0))
    image_size: int = 256
    cases: int = 700
    slices_per_case: int = 10
    validation_cases: int = 24
    text_updates: int = 1200
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.02
    warmup: int = 150
    ema: float = 0.998
    layer_scale: float = 0.3  # a run of hours has no time to grow SegNeXt's 1e-2
    seed: int = 0


def build_model(recipe: Recipe, vocabulary: int) -> LSMS:
    """Preset tiny with a two-layer BERT of width 128."""
    text = TextConfig(vocabulary, hidden_size=128, layers=2, heads=2, intermediate_size=512, max_tokens=32)
    model = LSMS(preset("tiny", image_size=recipe.image_size, text=text))
    for name, parameter in model.named_parameters():
        if name.endswith((".scale1", ".scale2")):
            nn.init.constant_(parameter, recipe.layer_scale)
    return model


def pretrain_text(model: LSMS, auxiliary: Auxiliary, sampler: Sampler, updates: int) -> float:
    """Teach the text encoder what the sentences say, without images: seconds instead of hours.  Returns the loss."""
    parameters = [*model.text_encoder.parameters(), *auxiliary.attributes.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4)
    value = math.nan
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 5e-4 * min(1.0, (update + 1) / 100)
        indices = sampler.rng.choice(len(sampler.corpus), 32, p=sampler.weight)
        sentences = [sentence for index in indices for sentence in sampler.sentences(int(index))]
        tokens = [sampler.tokenizer(sentence.text) for sentence in sentences]
        ids = torch.cat([torch.from_numpy(t.ids) for t in tokens])
        mask = torch.cat([torch.from_numpy(t.mask) for t in tokens])
        longest = int(mask.sum(1).max())
        hidden = model.text_encoder(ids[:, :longest], mask[:, :longest])
        loss = auxiliary.sentence_loss(hidden, torch.tensor([attribute_classes(s.query) for s in sentences]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
    return value


def train(recipe: Recipe, out: Path, workers: int, init: Path | None = None) -> None:
    """Run or resume ``recipe`` in ``out``; a new run begins with the checkpoint folder ``init`` where it is given.

    Leaves ``checkpoint.pt``, ``log.jsonl`` and the averaged ``model/``.
    """
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    slices = recipe.slices_per_case
    sets = (("train", TRAIN_SEED, recipe.cases), ("validation", VALIDATION_SEED, recipe.validation_cases))
    for name, seed, cases in sets:
        write_corpus(out / name, range(seed, seed + cases), slices, recipe.image_size, workers)
    if not (out / "tokenizer.json").exists():  # a resumed run keeps the vocabulary that it began with
        if init is not None:
            shutil.copyfile(init / "tokenizer.json", out / "tokenizer.json")
        else:
            write_vocabulary(out / "tokenizer.json")
    tokenizer = Tokenizer((out / "tokenizer.json").read_bytes(), TextConfig.max_tokens)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, tokenizer.vocab_size)
    if init is not None:
        model.load_state_dict(LSMS.from_pretrained(init).state_dict())
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    auxiliary = Auxiliary(model)
    window = model.config.hu_window
    held_out = read_corpus(out / "validation")
    everything = nn.ModuleDict({"model": model, "auxiliary": auxiliary})
    decay = [p for p in everything.parameters() if p.ndim > 1]
    others = [p for p in everything.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
    )
    average, done, seconds = copy.deepcopy(model), 0, 0.0
    if (out / "checkpoint.pt").exists():
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        everything.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, seconds = state["done"], state["seconds"]
    # The seed depends on where we resume, so that a resumed run does not see the same batches again.
    sampler = Sampler(read_corpus(out / "train"), tokenizer, window, recipe.seed + done)
    if done == 0 and recipe.text_updates and init is None:
        text_loss = pretrain_text(model, auxiliary, sampler, recipe.text_updates)
        _log(out, {"text_updates": recipe.text_updates, "text_loss": text_loss})

    # Every start is on record: a run may be resumed with another schedule or another commit.
    _log(out, {"start": done, "init": str(init or ""), "recipe": asdict(recipe)} | provenance("torch"))
    total = sum(phase.updates for phase in recipe.phases)
    began = time.monotonic() - seconds
    for update in tqdm(range(done, total), initial=done, total=total, desc="training", disable=None):
        phase = _phase(recipe, update)
        rate = _rate(recipe, update, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.train()
        batch = sampler.batch(phase.slices, phase.size, phase.full)
        loss, parts = total_loss(model, auxiliary, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(everything.parameters(), 2.0)
        optimizer.step()
        _average(average, model, min(recipe.ema, (update + 1) / (update + 20)))
        if (update + 1) % 20 == 0:
            _log(
                out,
                {"update": update + 1, "size": phase.size, "rate": rate, "seconds": time.monotonic() - began} | parts,
            )
        last = update + 1 == total
        if (update + 1) % 200 == 0 or last:
            state = {"model": everything.state_dict(), "average": average.state_dict()}
            state |= {
                "optimizer": optimizer.state_dict(),
                "done": update + 1,
                "seconds": time.monotonic() - began,
            }
            with atomic_file(out / "checkpoint.pt") as part:
                torch.save(state, part)
            average.save_pretrained(out / "model", tokenizer=out / "tokenizer.json", dtype=torch.float16)
        if (update + 1) % 400 == 0 or last:
            figures = validate(average, held_out, tokenizer, recipe.image_size, count=100 if last else 40)
            _log(out, {"update": update + 1, "validation": figures, "seconds": time.monotonic() - began})


def _phase(recipe: Recipe, update: int) -> Phase:
    for phase in recipe.phases:
        if update < phase.updates:
            return phase
        update -= phase.updates
    return recipe.phases[-1]


def _rate(recipe: Recipe, update: int, total: int) -> float:
    if update < recipe.warmup:
        return recipe.learning_rate * (update + 1) / recipe.warmup
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * update / total)))


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, keep: float) -> None:
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


def _log(out: Path, row: dict[str, Any]) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run; resumed if it exists")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate the phantom")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training itself")
    parser.add_argument("--recipe", type=Path, help="JSON with fields of Recipe to change (default: none)")
    parser.add_argument("--init", type=Path, help="checkpoint folder that a new run begins with (default: none)")
    options = parser.parse_args(argv)
    torch.set_flush_denormal(True)  # before any thread starts, so that all inherit it; denormals are slow
    torch.set_num_threads(options.threads)
    changes = json.loads(options.recipe.read_text()) if options.recipe else {}
    if "phases" in changes:
        changes["phases"] = tuple(Phase(**phase) for phase in changes["phases"])
    train(Recipe(**changes), options.out, options.workers, options.init)


if __name__ == "__main__":
    main()
