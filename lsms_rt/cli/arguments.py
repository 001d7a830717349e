"""Types of arguments, and arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from lsms_rt.data import demo_calibration, demo_engine

from .terminal import status

Options = TypeVar("Options")
DEMO = "demo"
IMAGE_SIZES = (64, 4096)
THREADS = (1, 256)


def options_from(cls: type[Options], arguments: argparse.Namespace, **others: Any) -> Options:
    """Build an options dataclass from parsed arguments of the same names; ``others`` are passed as they are."""
    names = [field.name for field in fields(cls) if field.name not in others]  # type: ignore[arg-type]
    return cls(**{name: getattr(arguments, name) for name in names}, **others)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else low - 1
        if not low <= value <= high:
            # A longer text is not repeated: it may be a patient's number or name.
            shown = repr(text) if re.fullmatch(r"[-+.\deE]{1,4}", text) else "the value"
            raise argparse.ArgumentTypeError(f"{shown} is not a whole number from {low} to {high}")
        return value

    return parse


def fraction(text: str) -> float:
    """Parse a number from 0 to 1 (an argparse type)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def comma_list(text: str) -> tuple[str, ...]:
    """Parse names separated by commas (an argparse type)."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def engine_path(text: str) -> Path:
    """Parse an engine directory (an argparse type); "demo" is always the bundled engine."""
    return _bundled(demo_engine(), "engine") if text == DEMO else Path(text)


def calibration_path(text: str) -> Path:
    """Parse a calibration folder (an argparse type); "demo" is always the bundled one."""
    return _bundled(demo_calibration(), "calibration") if text == DEMO else Path(text)


def _bundled(path: Path, what: str) -> Path:
    """Return the bundled ``path``, never a folder of that name: whose disk this is, is not known."""
    if Path(DEMO).exists():
        status(f"warning: {DEMO!r} is the bundled {what}; for the folder of that name, write ./{DEMO}")
    return path


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the engine, and the digest by which it is recognized."""
    parser.add_argument(
        "engine", type=engine_path, metavar="ENGINE", help="engine directory; 'demo' is the bundled engine"
    )
    add_digest(parser)


def add_digest(parser: argparse.ArgumentParser, which: str = "the engine") -> None:
    parser.add_argument(
        "--digest", metavar="sha256:HEX", help=f"reject {which} if its digest differs (default: no check)"
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="data set in the RefHL-Seg layout: a folder with annotations.csv"
    )


def add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--names", action="store_true",
        help="include names and sentences of the data set in messages and reports; they may identify a patient",
    )  # fmt: skip


def add_image_size(parser: argparse._ActionsContainer, default: int | None, help: str) -> None:
    parser.add_argument(
        "--image-size", type=whole_number(*IMAGE_SIZES), default=default, metavar="N",
        help=f"side of the square input, in pixels{help}",
    )  # fmt: skip


def add_threads(parser: argparse.ArgumentParser, default: str = "one per core") -> None:
    parser.add_argument("--threads", type=whole_number(*THREADS), metavar="N", help=f"CPU threads (default: {default})")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that :func:`runtime_options` reads."""
    add_threads(parser)
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1 ... (default: a GPU if the engine's backend can use one, else the CPU)",
    )
    parser.add_argument("--no-cuda-graph", action="store_true", help="run a TensorRT engine without CUDA graphs")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let a version-compatible TensorRT engine run the code that it brings for the CPU, as you; --digest does "
        "too",
    )


def runtime_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how an engine is opened, as keyword arguments of ``Segmenter``."""
    return {
        "threads": arguments.threads,
        "device": arguments.device,
        "cuda_graph": not arguments.no_cuda_graph,
        "trust_host_code": arguments.trust,
    }


def add_lenient(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lenient", action="store_true",
        help="answer a sentence that is not understood, with a note (default: reject it); see lsms-rt words",
    )  # fmt: skip


def on_unknown(arguments: argparse.Namespace) -> str:
    """Return what to do with a sentence that is not understood, as ``Segmenter`` takes it."""
    return "warn" if arguments.lenient else "refuse"


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else to stdout")


def add_max_dice_drop(parser: argparse._ActionsContainer, default: float) -> None:
    parser.add_argument(
        "--max-dice-drop", type=fraction, default=default, metavar="X",
        help="loss of mean Dice that must be excluded; newly missed lesions and new false positives are bounded by "
        "multiples of it (docs/int8.md)",
    )  # fmt: skip
