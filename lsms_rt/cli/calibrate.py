"""``lsms-rt calibrate``: find the layers that can be INT8, and write a recipe for INT8 engines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lsms_rt.calibration.options import BY, METHODS, CalibrateOptions
from lsms_rt.errors import InputError

from .arguments import (
    add_dataset,
    add_digest,
    add_image_size,
    add_json,
    add_max_dice_drop,
    add_names,
    add_threads,
    engine_path,
    options_from,
    whole_number,
)
from .parser import Command
from .terminal import status

MAX_ROWS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = CalibrateOptions
    parser.add_argument(
        "source", type=engine_path, metavar="ENGINE-or-CHECKPOINT",
        help="engine directory (onnxruntime, fp32) or checkpoint folder",
    )  # fmt: skip
    add_digest(parser)
    add_dataset(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="folder for the recipe; resumes if it exists",
    )  # fmt: skip
    add_max_dice_drop(parser, defaults.max_dice_drop)
    parser.add_argument(
        "--margin", type=float, default=defaults.margin, metavar="X",
        help="safety margin: total noise at most 1/X of the largest passing set's (1: none)",
    )  # fmt: skip
    parser.add_argument("--split", default=defaults.split, help="split that ranges are measured on")
    parser.add_argument(
        "--held-out-split", default=defaults.held_out_split, metavar="SPLIT", help="split that INT8 is judged on"
    )
    parser.add_argument(
        "--slices", type=whole_number(1, MAX_ROWS), default=defaults.slices, metavar="N",
        help="sentences used to measure ranges",
    )  # fmt: skip
    parser.add_argument(
        "--probe", type=whole_number(1, MAX_ROWS), default=defaults.probe, metavar="N",
        help="sentences used to measure the effect of each layer",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", type=whole_number(1, 10**6), default=defaults.held_out, metavar="N",
        help="sentences used to judge each set of layers",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=("auto", *METHODS), default=defaults.method,
        help="how ranges are measured; auto: minmax or percentile, whichever loses less accuracy, per layer",
    )  # fmt: skip
    parser.add_argument("--by", choices=BY, default=defaults.by, help="granularity of the search (group is faster)")
    add_image_size(parser, None, ", for a checkpoint (default: its own)")
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31), default=defaults.seed, metavar="N",
        help="random seed for selecting rows",
    )  # fmt: skip
    add_threads(parser)
    add_names(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.calibration.calibrate import calibrate

    options = options_from(CalibrateOptions, arguments)
    done = calibrate(_engine(arguments), arguments.dataset, arguments.output, options, status, arguments.digest)
    print(json.dumps(done.to_dict(), indent=2) if arguments.json else "\n".join(done.summary()))


def _engine(arguments: argparse.Namespace) -> Path:
    """Return the fp32 engine to calibrate; a checkpoint is exported first."""
    from lsms_rt.engine.manifest import MANIFEST

    source: Path = arguments.source
    if (source / MANIFEST).is_file():
        if arguments.image_size is not None:
            raise InputError("--image-size is for a checkpoint; an engine has a fixed size, so remove the option")
        return source
    if arguments.digest is not None:
        raise InputError(f"--digest is that of an engine, and {source} is none; remove it")
    if not (source / "config.json").is_file():
        raise InputError(f"{source} is neither an engine nor a checkpoint: it has no {MANIFEST} and no config.json")
    return _exported(source, arguments)


def _exported(checkpoint: Path, arguments: argparse.Namespace) -> Path:
    """Export a checkpoint into the output folder; reuse an export of the same weights, size and version."""
    from lsms_rt import __version__
    from lsms_rt.calibration.calibrate import check_output
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.digest import sha256
    from lsms_rt.export.build import build_engine
    from lsms_rt.export.options import BuildOptions

    # Check the data set and the folder before the expensive steps.
    read_annotations(arguments.dataset)
    check_output(arguments.output)
    arguments.output.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = [path.read_bytes() for path in sorted(checkpoint.iterdir()) if path.is_file()]
    key = sha256("".join([*map(sha256, files), str(arguments.image_size), __version__]).encode())
    path: Path = arguments.output / f"fp32-{key[:12]}.engine"
    if not path.exists():
        build_engine(BuildOptions(checkpoint=checkpoint, image_size=arguments.image_size), path, status)
    return path


COMMAND = Command(
    name="calibrate",
    help="find the layers that can be INT8 within an accuracy budget",
    add_arguments=add_arguments,
    run=run,
)
