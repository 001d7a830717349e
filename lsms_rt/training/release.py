"""From a finished run to what is bundled: ``python -m lsms_rt.training.release --run runs/demo``.

Builds the engine, measures it on RefHL-Phantom's test split, and writes the checkpoint, the engine, the examples, the
model card, the result file with the learning curve, and the pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lsms_rt.atomic import write_text
from lsms_rt.bench.accuracy.answers import save_answers
from lsms_rt.bench.accuracy.evaluate import evaluate
from lsms_rt.bench.accuracy.lines import reference_lines
from lsms_rt.bench.accuracy.surface import TOLERANCE_MM
from lsms_rt.bench.records import ACCURACY, record_of
from lsms_rt.data import DATA, demo_checkpoint, demo_engine
from lsms_rt.datasets.phantom.dataset import write_phantom
from lsms_rt.datasets.phantom.spec import PhantomSpec
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.export.build import build_engine
from lsms_rt.export.options import BuildOptions
from lsms_rt.model import LSMS
from lsms_rt.segmenter import Segmenter

from .examples import write_examples
from .figures import draw_answers, draw_curves
from .run import LOG

RESULTS, RECORD = Path("bench/results/cpu"), "demo_accuracy.json"


def release(run: Path, limit: int | None) -> dict[str, Any]:
    """Bundle the weights of a finished run and do all that the module says; returns the result record."""
    source = run / "model"
    model = LSMS.from_pretrained(source)
    model.save_pretrained(demo_checkpoint(), tokenizer=source / "tokenizer.json", dtype=torch.float16)
    write_examples(DATA / "examples")
    RESULTS.mkdir(parents=True, exist_ok=True)
    training = history(run / LOG)
    draw_curves(run / LOG, RESULTS / "demo_training.png")
    return publish(run / "phantom", limit, {"training": training})


def publish(phantom: Path, limit: int | None, training: dict[str, Any]) -> dict[str, Any]:
    """Build the bundled engine from the bundled checkpoint, then :func:`measure` it."""
    build_engine(BuildOptions(verify_slices=64, force=True), demo_engine(), print)
    return measure(phantom, limit, training)


def measure(phantom: Path, limit: int | None, training: dict[str, Any]) -> dict[str, Any]:
    """Measure the bundled engine, and write record, pictures and model card.

    ``training`` is how the weights were made, which no engine records.
    """
    if not (phantom / "annotations.csv").exists():
        shutil.rmtree(phantom, ignore_errors=True)
        write_phantom(phantom, PhantomSpec())
    with Segmenter(demo_engine()) as segmenter:
        rows = read_annotations(phantom, "test")[:limit]
        accuracy, judged = evaluate(segmenter, rows, TOLERANCE_MM)
        parity = segmenter.manifest.accuracy
        draw_answers(segmenter, [one.answer for one in judged], RESULTS / "demo_answers.png")
    save_answers(RESULTS / "demo_answers.csv", judged)
    record = record_of(
        ACCURACY,
        ("torch", "onnxruntime", "surface-distance"),
        what="demo weights on RefHL-Phantom, seed 0, test split (held-out cases), through the bundled engine",
        accuracy=accuracy.to_dict(),
        reference_lines=reference_lines(phantom, rows),
        parity_with_pytorch=parity,
        **training,
    )
    card = _card(record)
    write_text(RESULTS / RECORD, json.dumps(record, indent=2) + "\n")
    write_text(demo_checkpoint() / "README.md", card)
    return record


def recorded_training() -> dict[str, Any]:
    """What the committed record says of the training of the bundled weights."""
    return {"training": json.loads((RESULTS / RECORD).read_text())["training"]}


def history(log: Path) -> dict[str, Any]:
    """Summarize a training log: hours, examples, starts with their commits, learning curve, operating point.

    Taken from what was logged and not from the recipe, which a resumed run may have changed.  A row with a "remark" is
    for whoever runs it to add; the model card repeats it.
    """
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [row for row in rows if "rate" in row]
    checks = [row for row in rows if "validation" in row]
    starts = [row for row in rows if "data" in row]
    points = [row for row in rows if "operating point" in row]
    done = [row for row in rows if "examples" in row]
    return {
        "updates": max((row["updates"] for row in done), default=0),
        "examples": max((row["examples"] for row in done), default=0),
        "hours": round(max((row["seconds"] for row in done), default=0.0) / 3600, 2),
        "stages": list(dict.fromkeys(f"{row['stage']} at {row['size']}x{row['size']}" for row in steps)),
        "starts": [{name: row.get(name) for name in ("data", "init", "commit", "date", "device")} for row in starts],
        "remarks": [row["remark"] for row in rows if "remark" in row],
        "operating_point": points[-1]["operating point"] if points else None,
        "curve": [{"examples": row["examples"], "stage": row["stage"]} | row["validation"] for row in checks],
    }


def _card(record: dict[str, Any]) -> str:
    figures, training = record["accuracy"], record["training"]
    lesions, surface = figures["lesions"], figures["surface"]
    remarks = "".join(f"\n{remark}\n" for remark in training["remarks"])
    commits = ", ".join(dict.fromkeys(start["commit"] for start in training["starts"]))
    last = training["starts"][-1]
    return f"""# Model card: lsms-rt demo weights

LSMS (arXiv 2408.17347, reconstructed), preset tiny with presence head, two logits per side of a stride-4 cell and crop
to the body; a two-layer BERT-shaped text encoder of width 128 with its own WordPiece vocabulary. Stored in fp16,
computed in fp32. **Trained on synthetic CT only. Not a medical device; answers on real images mean nothing.** The
weights exist so that the engine can be tried, tested and measured.

| | |
|---|---|
| data | RefHL-Phantom version {last["data"]["phantom_version"]}: {last["data"]["cases"]} cases, seeds from 5100000 |
| training | {training["examples"]} examples, {training["updates"]} updates; {"; ".join(training["stages"])} |
| device, time | {last["device"]["processor"]}, {training["hours"]:.1f} hours |
| commits, date | trained at {commits}; measured at {record["commit"]}, {record["date"]} |
| license | Apache-2.0, as the code; no third party's data or weights are in it |
{remarks}
Measured on the test split of RefHL-Phantom (seed 0): {figures["cases"]} held-out cases, {figures["slices"]} slices,
{figures["sentences"]} sentences, through the bundled engine (`bench/results/cpu/demo_accuracy.json`).

| figure | |
|---|---|
| mean Dice, true sentences | {figures["dice"]:.3f} |
| mean Dice when another lesion of the same slice is named | {figures["dice_other"]:.3f} |
| specificity: false sentences that get an empty mask | {figures["silence"]:.1%} |
| missed: true sentences that get an empty mask | {figures["missed"]:.1%} |
| hit rate: true sentences with a Dice of at least 0.1 | {figures["hit_rate"]:.1%} |
| precision, recall, F1 per lesion | {lesions["precision"]:.3f}, {lesions["recall"]:.3f}, {lesions["f1"]:.3f} |
| false positives per slice and sentence | {lesions["false_positives_per_slice"]:.3f} |
| normalized surface distance within {surface["tolerance_mm"]:g} mm, masks that are not empty | {surface["nsd"]:.3f} |
| HD95 of the same: mean, median | {surface["hd95_mm"]:.1f} mm, {surface["hd95_median_mm"]:.1f} mm |
| mean Dice between the answers to two wordings of one meaning | {figures["paraphrase_dice"]:.3f} |

Which words matter: `lsms-rt evaluate demo DATASET --probe-words`, measured in `bench/results/cpu/demo_probes.json`.
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the finished run")
    parser.add_argument("--limit", type=int, help="only the first N sentences of the test split (default: all)")
    parser.add_argument(
        "--engine-only", action="store_true", help="keep the bundled weights: build their engine and measure it again"
    )
    parser.add_argument("--measure-only", action="store_true", help="keep the bundled engine: measure it again")
    options = parser.parse_args(argv)
    if options.engine_only:
        record = publish(options.run / "phantom", options.limit, recorded_training())
    elif options.measure_only:
        record = measure(options.run / "phantom", options.limit, recorded_training())
    else:
        record = release(options.run, options.limit)
    print(json.dumps(record["accuracy"], indent=2))


if __name__ == "__main__":
    main()
