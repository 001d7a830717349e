"""``lsms-rt train``: a data set in the RefHL-Seg layout -> a checkpoint.

Checks first, from cheap to expensive; then the same training as that of the demo weights.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsms_rt.bench.provenance import provenance
from lsms_rt.datasets.questions import ask, questions
from lsms_rt.errors import GpuNotFoundError, InputError, chain_cut
from lsms_rt.model import LSMS, LsmsConfig
from lsms_rt.model.lsms import TOKENIZER
from lsms_rt.pytorch import open_checkpoint
from lsms_rt.sentences.contract import TABLE, table_of, taught_table
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler
from .card import Facts, card, losses_of
from .dataset import (
    TRAIN,
    VALIDATION,
    Rows,
    check_answers,
    check_knowledge,
    check_words,
    images_of,
    read_rows,
    updates_per_epoch,
)
from .figures import draw_answers, draw_curves
from .fit import Fitted, fit, save_checkpoint
from .heads import TrainingHeads
from .options import DEFAULT_EPOCHS, DEMO, TrainOptions
from .output import RUN, SLICES, check_space, claim, record
from .prepare import write_dataset_slices
from .recipe import default_recipe
from .release import history
from .run import LOG, STATE, Length, Run
from .sentences import Mix
from .slices import Slices, is_complete, read_slices
from .start import Start, begin
from .validation import Validation
from .vocabulary import knows_grammar

BATCH = 8
# Answers to choose the pictured ones from.
ANSWERS = 100
CARD, CURVES, EXAMPLES, CHECKPOINT = "README.md", "curves.png", "examples.png", "checkpoint"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        checkpoint: its folder.
        point: thresholds and what they give on validation sentences, see ``choose_operating_point``.
    """

    checkpoint: Path
    point: dict[str, Any]


@chain_cut
def train(options: TrainOptions, status: Callable[[str], None]) -> Trained:
    """Train on a data set, or continue a run; Ctrl-C leaves a run that can be resumed.

    Args:
        options: what to train on what, where and how long.
        status: receives lines for the user.

    Raises:
        InputError: the data set, the weights to begin with or the output folder cannot be used.
        GpuNotFoundError: ``device`` is "cuda" and PyTorch finds no GPU.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise GpuNotFoundError("--device cuda: PyTorch finds no NVIDIA GPU; use --device cpu")
    # Before any thread starts, so that all inherit it; denormal numbers are slow.
    torch.set_flush_denormal(True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rows = read_rows(options.dataset)
    recorded = claim(options, rows)
    start = _start(options, rows, recorded, status)
    config, folder = start.model.config, options.output
    check_words(rows, Tokenizer(start.tokenizer, config.text.max_tokens))
    heads = TrainingHeads(config)
    size = slice_size(config)
    missing = [part for part in (rows.train, rows.validation)
               if recorded is None or not is_complete(_folder_of(folder, rows, part))]  # fmt: skip
    parameters = sum(p.numel() for module in (start.model, heads) for p in module.parameters())
    check_space(folder, sum(map(images_of, missing)), size, parameters)
    # It holds slices of patients.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    training, held_out = _slices(folder, rows, size, recorded is None)
    remarks = check_answers(rows, *_answers(training, held_out)) + check_knowledge(rows)
    if recorded is None:
        record(options, rows, config.to_dict())
    (folder / TOKENIZER).write_bytes(start.tokenizer)
    (folder / TABLE).write_text(_table(options, rows, start), encoding="utf-8")
    run = _run(options, start, heads, training)
    losses = losses_of([training], config.presence, grammar=run.recipe.mix.grammar > 0)
    remarks += _said(training, run.recipe.mix)
    counts = [_count(name, part) for name, part in ((TRAIN, training), (VALIDATION, held_out))]
    for line in (*counts, *remarks, f"losses: {', '.join(losses.used)}", f"left out: {losses.absent}"):
        status(line)
    length = _length(options, rows)
    if run.done.updates:
        share = length.progress(run.done.updates, run.done.seconds)
        status(f"resumed after update {run.done.updates}, {share:.0%} of the run")
    run.log({"data": counts, "init": options.init} | provenance("torch", gpu=_gpu(options.device)))
    validation = Validation([held_out], run.tokenizer, _sampler(held_out, config, seed=0, augmented=False))
    try:
        fitted = fit(run, validation, length, folder / TOKENIZER, status=status)
    except KeyboardInterrupt:
        done = run.done.updates
        status(
            f"stopped after update {done}; the same options with --resume continue"
            if done
            else "stopped before the first update: nothing is trained yet"
        )
        raise
    if fitted.updates == 0:
        status("no update was better on the validation sentences: the checkpoint holds the weights it began with")
    run.log({"operating point": fitted.operating_point, "weights of update": fitted.updates})
    facts = Facts(
        dataset=options.dataset.resolve().name,
        counts=counts,
        init=_init_text(options),
        config=fitted.model.config,
        losses=losses,
        history=history(folder / LOG),
        point=fitted.operating_point,
        update=fitted.updates,
        remarks=remarks,
    )
    _finish(folder, fitted, rows, facts)
    return Trained(folder, fitted.operating_point)


def slice_size(config: LsmsConfig) -> int:
    """Side of the prepared slices: a body fills about two thirds of a slice, and must not lose resolution."""
    return config.image_size if config.crop == "none" else config.image_size * 3 // 2


def _start(options: TrainOptions, rows: Rows, recorded: dict[str, Any] | None, status: Callable[[str], None]) -> Start:
    if recorded is None or not (options.output / STATE).exists():
        said = [[row.sentence for row in part] for part in (rows.train, rows.validation)]
        return begin(options, said[0], status, held_out=said[1])
    try:
        # The weights come from the state.
        model = LSMS(LsmsConfig.from_dict(recorded["config"]))
        return Start(model, (options.output / TOKENIZER).read_bytes())
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{options.output}: {RUN} or {TOKENIZER} is damaged; start anew in a new folder") from error


def _table(options: TrainOptions, rows: Rows, start: Start) -> str:
    """Return the table that the checkpoint's sentences are read by."""
    tokenizer = Tokenizer(start.tokenizer, start.model.config.text.max_tokens)
    own = None if options.is_new or options.init == DEMO else table_of(Path(options.init))
    return taught_table([row.sentence for row in rows.train], tokenizer.is_unknown, own)


def _run(options: TrainOptions, start: Start, heads: TrainingHeads, training: Slices) -> Run:
    config = start.model.config
    tokenizer = Tokenizer(start.tokenizer, config.text.max_tokens)
    recipe = default_recipe(config, complete=training.complete, batch=BATCH, seed=options.seed)
    if not knows_grammar(tokenizer):
        recipe = replace(recipe, mix=replace(recipe.mix, grammar=0.0))
    run = Run(
        model=start.model,
        heads=heads,
        recipe=recipe,
        tokenizer=tokenizer,
        sampler=_sampler(training, config, seed=recipe.seed, augmented=True),
        folder=options.output,
        device=torch.device(options.device),
    )
    if (options.output / STATE).exists():
        run.resume()
        run.sampler.reseed(recipe.seed + run.done.updates)
    return run


def _sampler(part: Slices, config: LsmsConfig, *, seed: int, augmented: bool) -> Sampler:
    return Sampler(
        [part],
        image_size=config.image_size,
        window=config.hu_window,
        seed=seed,
        crop_body=config.crop == "body",
        augmented=augmented,
    )


def _folder_of(folder: Path, rows: Rows, part: object) -> Path:
    return folder / SLICES / (TRAIN if part is rows.train else VALIDATION)


def _slices(folder: Path, rows: Rows, size: int, new: bool) -> tuple[Slices, Slices]:
    if new:
        # They may be those of another data set.
        shutil.rmtree(folder / SLICES, ignore_errors=True)
    found = []
    for part in (rows.train, rows.validation):
        place = _folder_of(folder, rows, part)
        write_dataset_slices(place, rows.folder, part, size, f"reading {place.name}")
        found.append(read_slices(place))
    return found[0], found[1]


def _answers(training: Slices, held_out: Slices) -> tuple[dict[str, int], dict[str, int]]:
    """Sentences that mean something, and sentences that mean nothing, by split."""
    counts = {
        name: Counter(bool(asked.regions) for record in part.records for asked in record.asked)
        for name, part in ((TRAIN, training), (VALIDATION, held_out))
    }
    return {name: count[True] for name, count in counts.items()}, {name: count[False] for name, count in counts.items()}


def _said(training: Slices, mix: Mix) -> list[str]:
    """Who makes the sentences about slices whose lesions' attributes are known."""
    if any(record.lesions is None for record in training.records):
        return []
    if not mix.grammar:
        return ["the vocabulary lacks words of the grammar: it makes no sentences from the lesions' attributes"]
    return [f"about {mix.grammar:.0%} of the pictures, the grammar makes the sentences from the lesions' attributes"]


def _count(name: str, part: Slices) -> str:
    cases, sentences = len({record.case for record in part.records}), sum(len(record.asked) for record in part.records)
    return f"{name}: {cases} case{'s' if cases > 1 else ''}, {len(part)} slices, {sentences} sentences"


def _length(options: TrainOptions, rows: Rows) -> Length:
    if options.hours is not None:
        return Length(hours=options.hours)
    return Length(updates=(options.epochs or DEFAULT_EPOCHS) * updates_per_epoch(rows, BATCH))


def _gpu(device: str) -> str | None:
    return torch.cuda.get_device_name() if device == "cuda" else None


def _init_text(options: TrainOptions) -> str:
    if not options.is_new:
        return "the bundled demo weights" if options.init == "demo" else f"the checkpoint {Path(options.init).name}"
    parts = {"text encoder": options.text_encoder, "backbone": options.backbone}
    given = [f"{what} {path.name}" for what, path in parts.items() if path is not None]
    return "random weights" + (f", {' and '.join(given)}" if given else "")


def _finish(folder: Path, fitted: Fitted, rows: Rows, facts: Facts) -> None:
    """Write the checkpoint's files into the run's folder, complete before the first of them appears."""
    made = folder / CHECKPOINT
    save_checkpoint(fitted.model, made, folder / TOKENIZER, {CARD: card(facts)})
    draw_curves(folder / LOG, made / CURVES)
    _draw_examples(made, rows.validation)
    for path in sorted(made.iterdir()):
        path.replace(folder / path.name)
    made.rmdir()


def _draw_examples(checkpoint: Path, rows: Sequence[Any]) -> None:
    """Picture the worst, median and best of up to ``ANSWERS`` answers, through the same path as ``predict``'s."""
    true = [row for row in rows if row.read_mask().any()]
    chosen = np.unique(np.linspace(0, len(true) - 1, min(ANSWERS, len(true))).round().astype(int))
    asked = [true[int(number)] for number in chosen]
    with open_checkpoint(checkpoint, kernels="stock", device="cpu", on_unknown="warn") as segmenter:
        answers = [a for _, a, _ in ask(segmenter, questions(asked), title="validation answers", count=len(asked))]
        draw_answers(segmenter, answers, checkpoint / EXAMPLES, "validation cases")
