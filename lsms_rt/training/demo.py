"""The demo weights: ``python -m lsms_rt.training.demo --out runs/demo --hours 12``; resumes a run that was stopped.

The same training as ``lsms-rt train``, on slices of RefHL-Phantom that are made for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lsms_rt.atomic import write_text
from lsms_rt.bench.provenance import provenance
from lsms_rt.datasets.phantom import PHANTOM_VERSION
from lsms_rt.model import preset
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler
from .fit import fit
from .heads import TrainingHeads
from .phantom_slices import write_phantom_slices
from .recipe import default_recipe
from .run import STATE, Length, Run
from .slices import Slices, read_slices
from .start import OWN_TEXT, from_checkpoint, new_model
from .validation import Validation
from .vocabulary import write_vocabulary

# Case seeds; those of ``lsms-rt phantom`` are seed * 1000 + number, with seeds below 5000.
TRAIN_SEED, VALIDATION_SEED = 5_100_000, 6_100_000
CASES_PER_PART, SLICES_PER_CASE = 100, 10
IMAGE_SIZE = 256


def write_slices(folder: Path, parts: int, workers: int) -> tuple[list[Slices], list[Slices]]:
    """Training and validation slices; parts that exist are kept."""
    seeds = {
        f"train_{part}": range(TRAIN_SEED + part * CASES_PER_PART, TRAIN_SEED + (part + 1) * CASES_PER_PART)
        for part in range(parts)
    } | {"validation": range(VALIDATION_SEED, VALIDATION_SEED + 30)}
    for name, cases in seeds.items():
        write_phantom_slices(folder / name, cases, SLICES_PER_CASE, IMAGE_SIZE, workers)
    return [read_slices(folder / f"train_{part}") for part in range(parts)], [read_slices(folder / "validation")]


def train_demo(
    out: Path, *, hours: float, init: Path | None = None, parts: int = 10, workers: int = 2, slices: Path | None = None
) -> None:
    """Train preset tiny in ``out``, which afterwards holds the best weights in ``best/`` and the log.

    Args:
        out: the run's folder; a run in it is resumed.
        hours: length of the whole run.
        init: checkpoint that a new run begins with; None: random weights.
        parts: training slices, in hundreds of cases.
        workers: processes that generate slices.
        slices: where the slices are or go; default: ``out``/slices.
    """
    out.mkdir(parents=True, exist_ok=True)
    training, held_out = write_slices(slices or out / "slices", parts, workers)
    vocabulary = out / "tokenizer.json"
    if not vocabulary.exists():
        if init is None:
            write_vocabulary(vocabulary)
        else:
            write_text(vocabulary, (init / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer(vocabulary.read_bytes(), OWN_TEXT.max_tokens)
    text = replace(OWN_TEXT, vocab_size=tokenizer.vocab_size)
    config = preset("tiny", image_size=IMAGE_SIZE, text=text, presence=True, subpixel=2, crop="body")
    recipe = default_recipe(config, complete=True)
    torch.manual_seed(recipe.seed)
    if init is None:
        model = new_model(config, recipe.layer_scale)
    else:
        model = from_checkpoint(init, presence=True, subpixel=2, crop="body")
    about = {"image_size": IMAGE_SIZE, "window": config.hu_window, "crop_body": True}
    run = Run(
        model=model,
        heads=TrainingHeads(config),
        recipe=recipe,
        tokenizer=tokenizer,
        sampler=Sampler(training, seed=recipe.seed, **about),  # type: ignore[arg-type]
        folder=out,
        device=torch.device("cpu"),
    )
    if (out / STATE).exists():
        run.resume()
        run.sampler.reseed(recipe.seed + run.done.updates)
    run.log({"data": {"phantom_version": PHANTOM_VERSION, "cases": parts * CASES_PER_PART}, "init": str(init or "")}
            | provenance("torch"))  # fmt: skip
    if run.done.updates == 0 and init is None:
        run.log({"text loss": run.train_text(recipe.text_updates)})
    still = Sampler(held_out, seed=0, augmented=False, **about)  # type: ignore[arg-type]
    everything = Validation(held_out, tokenizer, still, per_slice=None)
    fitted = fit(run, Validation(held_out, tokenizer, still), Length(hours=hours), vocabulary, thresholds=everything)
    run.log({"operating point": fitted.operating_point, "weights of update": fitted.updates})
    fitted.model.save_pretrained(out / "model", tokenizer=vocabulary, dtype=torch.float16)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run; resumed if it exists")
    parser.add_argument("--hours", type=float, default=12.0, help="length of the whole run, hours of training")
    parser.add_argument("--init", type=Path, help="checkpoint that a new run begins with (default: random weights)")
    parser.add_argument("--parts", type=int, default=10, help="parts of the training data, 100 cases of 10 slices each")
    parser.add_argument("--slices", type=Path, help="folder of the slices (default: slices/ in the run's folder)")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate slices")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training itself")
    options = parser.parse_args(argv)
    # Before any thread starts, so that all inherit it; denormal numbers are slow.
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    try:
        train_demo(
            options.out,
            hours=options.hours,
            init=options.init,
            parts=options.parts,
            workers=options.workers,
            slices=options.slices,
        )
    except KeyboardInterrupt:
        sys.exit(f"interrupted; the same command resumes the run in {options.out}")


if __name__ == "__main__":
    main()
