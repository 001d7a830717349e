"""``lsms-rt train``: train a network on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsms_rt.body import CROPS
from lsms_rt.model.config import PRESETS
from lsms_rt.training.options import (
    DEFAULT_CROP,
    DEFAULT_EPOCHS,
    DEFAULT_PRESET,
    DEFAULT_SIZE,
    DEVICES,
    TrainOptions,
)

from .arguments import add_dataset, add_image_size, add_names, add_threads, options_from, whole_number
from .parser import Command
from .terminal import status

MAX_EPOCHS, MAX_SEED = 10**6, 2**31


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = TrainOptions
    add_dataset(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="CHECKPOINT", help="new folder for run and checkpoint"
    )
    parser.add_argument(
        "--init", default=defaults.init, metavar="CHECKPOINT",
        help="what to begin with: a checkpoint folder, 'demo' (the bundled weights) or 'none' (a new network)",
    )  # fmt: skip
    new = parser.add_argument_group("a new network (--init none)")
    new.add_argument("--preset", choices=tuple(PRESETS), help=f"its size (default: {DEFAULT_PRESET})")
    new.add_argument(
        "--text-encoder", type=Path, metavar="DIR",
        help="Hugging Face folder of a BERT: config.json, model.safetensors, tokenizer.json (default: a small new one "
        "with the data set's words)",
    )  # fmt: skip
    new.add_argument(
        "--backbone", type=Path, metavar="FILE",
        help="MSCAN weights as SegNeXt publishes them, .pth or .safetensors (default: random weights)",
    )  # fmt: skip
    add_image_size(parser, defaults.image_size, f" (default: that of --init; {DEFAULT_SIZE} for a new network)")
    parser.add_argument(
        "--crop", choices=CROPS,
        help=f"what of a slice is the input (default: that of --init; {DEFAULT_CROP} for a new network)",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=whole_number(1, MAX_EPOCHS), metavar="N",
        help=f"length of the run in passes over the training slices (default: {DEFAULT_EPOCHS})",
    )  # fmt: skip
    length.add_argument(
        "--hours", type=float, metavar="H", help="length of the run in hours of training (default: --epochs)"
    )
    parser.add_argument("--device", choices=DEVICES, default=defaults.device, help="cuda computes in bfloat16")
    add_threads(parser)
    add_names(parser)
    parser.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), default=defaults.seed, metavar="N", help="of all random numbers"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder; repeat the other options"
    )


def run(arguments: argparse.Namespace) -> None:
    options = options_from(TrainOptions, arguments)

    from lsms_rt.training.train import train

    done = train(options, status)
    point = done.point
    silence = "" if point["specificity"] is None else f", specificity {point['specificity']:.1%}"
    print(
        f"{done.checkpoint}: Dice {point['dice']:.3f}, missed {point['missed']:.1%}{silence} on validation sentences; "
        f"next: lsms-rt build-engine --checkpoint {done.checkpoint} -o NAME.engine"
    )


COMMAND = Command(name="train", help="train a network on a data set", add_arguments=add_arguments, run=run)
