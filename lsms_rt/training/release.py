"""From a finished run to what is bundled: ``python -m lsms_rt.training.release --run runs/demo``.

Chooses the two thresholds on validation cases, builds the engine, measures it on RefHL-Phantom's test split, and
writes the checkpoint, the engine, the examples, the model card, the result file and the pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsms_rt.bench.accuracy import evaluate, save_answers
from lsms_rt.bench.records import ACCURACY, record_of
from lsms_rt.data import DATA, demo_checkpoint, demo_engine
from lsms_rt.datasets.phantom.dataset import PhantomSpec, write_phantom
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.export.build import BuildOptions, build_engine
from lsms_rt.model import LSMS, TextConfig
from lsms_rt.segmenter import Segmenter
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler
from .corpus import Corpus, read_corpus
from .examples import write_examples
from .figures import draw_answers, draw_curves
from .validate import validate

RESULTS, RECORD = Path("bench/results/cpu"), "demo_accuracy.json"
CONFIDENCES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)


@torch.no_grad()
def choose_thresholds(model: LSMS, corpus: Corpus, tokenizer: Tokenizer, slices: int) -> dict[str, Any]:
    """``threshold`` of a pixel by the best Dice; ``confidence`` by the best sum of Dice and silence.

    Both on validation cases.  The table of all that was tried is part of the answer.
    """
    sampler = Sampler(corpus, tokenizer, model.config.hu_window, seed=2, augment=False)
    thresholds = (0.3, 0.4, 0.5, 0.6)
    dice: list[list[float]] = []
    tops: list[float] = []
    false: list[float] = []
    for _ in range(max(1, slices // 8)):
        batch = sampler.batch(8, model.config.image_size, full=1.0)
        probability = model(batch.image, batch.tokens, batch.mask).sigmoid()
        for p, target in zip(probability, batch.target > 0, strict=True):
            if not target.any():
                false.append(float(p.max()))
                continue
            tops.append(float(p.max()))
            dice.append([float(2 * ((p > t) & target).sum() / ((p > t).sum() + target.sum())) for t in thresholds])
    table, top, empty = np.array(dice), np.array(tops), np.array(false)
    best = int(table.mean(0).argmax())
    rows = [
        {
            "confidence": c,
            "dice": float((table[:, best] * (top >= c)).mean()),
            "silence": float((empty < max(c, thresholds[best])).mean()),
        }
        for c in CONFIDENCES
    ]
    chosen = max(rows, key=lambda row: row["dice"] + row["silence"])
    return {
        "threshold": thresholds[best],
        "confidence": chosen["confidence"],
        "table": rows,
        "sentences": len(top) + len(empty),
    }


def best_weights(run: Path, corpus: Corpus, tokenizer: Tokenizer, slices: int) -> tuple[LSMS, dict[str, Any]]:
    """The averaged or the last weights of a run, whichever do better on validation cases; and both their figures.

    An average over more updates than the last phase had still holds weights from before it.
    """
    average = LSMS.from_pretrained(run / "model")
    last = LSMS(average.config)
    state = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    last.load_state_dict({n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")})
    figures = {
        name: validate(model, corpus, tokenizer, average.config.image_size, slices)
        for name, model in (("average", average), ("last", last.eval()))
    }
    chosen = max(figures, key=lambda name: figures[name]["dice"] + figures[name]["silent"])
    return (average if chosen == "average" else last), figures | {"chosen": chosen}


def release(run: Path, slices: int, limit: int | None) -> dict[str, Any]:
    """Do all that the module says; returns the result record."""
    tokenizer = Tokenizer((run / "model" / "tokenizer.json").read_bytes(), TextConfig.max_tokens)
    validation = read_corpus(run / "validation")
    model, weights = best_weights(run, validation, tokenizer, slices)
    choice = choose_thresholds(model, validation, tokenizer, slices)
    model.config = replace(model.config, threshold=choice["threshold"], confidence=choice["confidence"])
    model.save_pretrained(demo_checkpoint(), tokenizer=run / "model" / "tokenizer.json", dtype=torch.float16)
    write_examples(DATA / "examples")
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw_curves(run / "log.jsonl", RESULTS / "demo_training.png")
    return publish(
        run / "phantom",
        limit,
        {"weights": weights, "thresholds": choice, "training": history(run / "log.jsonl")},
    )


def publish(phantom: Path, limit: int | None, training: dict[str, Any]) -> dict[str, Any]:
    """Build the bundled engine from the bundled checkpoint, measure it, and write record, pictures and model card.

    ``training`` is how the weights came to be ("weights", "thresholds", "training"), which no engine tells.
    """
    manifest = build_engine(BuildOptions(verify_slices=64, force=True), demo_engine(), print)
    if not (phantom / "annotations.csv").exists():
        shutil.rmtree(phantom, ignore_errors=True)
        write_phantom(phantom, PhantomSpec())
    with Segmenter(demo_engine()) as segmenter:
        accuracy, answers = evaluate(segmenter, read_annotations(phantom, "test")[:limit])
        draw_answers(segmenter, answers, RESULTS / "demo_answers.png")
    save_answers(RESULTS / "demo_answers.csv", answers)
    record = record_of(
        ACCURACY,
        ("torch", "onnxruntime"),
        what="demo weights on RefHL-Phantom, seed 0, test split (held-out cases), through the bundled engine",
        accuracy=accuracy.to_dict(),
        parity_with_pytorch=manifest.accuracy,
        **training,
    )
    (RESULTS / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (demo_checkpoint() / "README.md").write_text(_card(record))
    return record


def publish_again(phantom: Path, limit: int | None) -> dict[str, Any]:
    """After a change of the export: the same weights in a new engine, measured; what training recorded is kept."""
    record = json.loads((RESULTS / RECORD).read_text())
    return publish(phantom, limit, {name: record[name] for name in ("weights", "thresholds", "training")})


def history(log: Path) -> dict[str, Any]:
    """What a run's log says was done: updates at each image size, hours, and every start with its commit.

    Taken from what was logged and not from the recipe, which a resumed run may have changed.  A row with a "remark" is
    for whoever runs it to add; the model card repeats it.
    """
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    sizes = {row["update"]: row["size"] for row in rows if "size" in row}
    updates: dict[str, int] = {}
    previous = 0
    for update, size in sorted(sizes.items()):
        updates[f"{size}x{size}"] = updates.get(f"{size}x{size}", 0) + update - previous
        previous = update
    starts = [row for row in rows if "start" in row]
    return {
        "updates": updates,
        "hours": round(max(row.get("seconds", 0) for row in rows) / 3600, 2),
        "starts": [{name: row[name] for name in ("start", "commit", "date", "versions", "device")} for row in starts],
        "remarks": [row["remark"] for row in rows if "remark" in row],
        "recipe_of_last_start": starts[-1]["recipe"] if starts else None,
    }


def _card(record: dict[str, Any]) -> str:
    figures, training = record["accuracy"], record["training"]
    recipe = training["recipe_of_last_start"]
    phases = ", ".join(f"{count} at {size}" for size, count in training["updates"].items())
    remarks = "".join(f"\n{remark}\n" for remark in training["remarks"])
    commits = ", ".join(dict.fromkeys(start["commit"] for start in training["starts"]))
    return f"""# Model card: lsms-rt demo weights

LSMS (arXiv 2408.17347, reconstructed), preset tiny, with a two-layer BERT-shaped text encoder of width 128 and its own
WordPiece vocabulary. Stored in fp16, computed in fp32. **Trained on synthetic CT only. Not a medical device; its
answers on real images mean nothing.** They exist so that the engine can be tried, tested and measured.

| | |
|---|---|
| last data | RefHL-Phantom: {recipe["cases"]} cases of {recipe["slices_per_case"]} slices, seeds from 5000000 |
| training | {phases} updates; BCE + Dice + pixel-text contrast, AdamW; seed {recipe["seed"]} |
| device, time | {training["starts"][-1]["device"]["processor"]}, {training["hours"]:.1f} hours |
| commits, date | trained at {commits}, measured at {record["commit"]}, {record["date"]} |
| licence | Apache-2.0, as the code; no third party's data or weights are in it |
{remarks}
Measured on the test split of RefHL-Phantom (seed 0): {figures["cases"]} held-out cases, {figures["slices"]} slices,
{figures["sentences"]} sentences, through the bundled engine (`bench/results/cpu/demo_accuracy.json`).

| figure | |
|---|---|
| mean Dice, sentences that are true of something | {figures["dice"]:.3f} |
| mean Dice when another lesion of the same slice is named | {figures["dice_other"]:.3f} |
| sentences true of nothing that get an empty mask | {figures["silence"]:.1%} |
| sentences true of something that get an empty mask | {figures["missed"]:.1%} |
| mean Dice between the answers to two wordings of one meaning | {figures["paraphrase_dice"]:.3f} |
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the finished run")
    parser.add_argument("--slices", type=int, default=160, help="validation slices for the thresholds")
    parser.add_argument("--limit", type=int, help="only the first N sentences of the test split (default: all)")
    parser.add_argument(
        "--engine-only", action="store_true", help="keep the bundled weights: build their engine and measure it again"
    )
    options = parser.parse_args(argv)
    if options.engine_only:
        record = publish_again(options.run / "phantom", options.limit)
    else:
        record = release(options.run, options.slices, options.limit)
    print(json.dumps(record["accuracy"], indent=2))


if __name__ == "__main__":
    main()
