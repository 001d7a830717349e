"""The arguments of the command line: what may be said, and the words of ``--help``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lsms_rt import __version__
from lsms_rt.engine.registry import BACKENDS, ONNXRUNTIME

LEVELS = ("debug", "info", "warning", "error")
NOT_FOR_DIAGNOSIS = "Research software, not a medical device."


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all others of this program.

    They name options and not what was given: a sentence or a file's name may hold a patient's data.
    """

    def error(self, message: str) -> NoReturn:
        what, _, given = message.partition(": ")
        if what == "unrecognized arguments":
            message = f"{len(given.split())} words too many; put a sentence in quotes"
        elif given.startswith("invalid choice: "):
            message = f"{what}: choose {given.rpartition('(choose ')[2].rstrip(')')}"
        elif given.startswith("invalid "):
            message = f"{what}: an {given.partition(': ')[0]}"
        elif given.startswith("ignored explicit argument"):
            message = f"{what}: takes no value"
        elif what.startswith("ambiguous option"):
            message = "an option that begins like several; write it out"
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except "None", which the option's own text explains."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


Run = Callable[[argparse.Namespace], int | None]


def make_parser(runs: Mapping[str, Run]) -> argparse.ArgumentParser:
    """The whole command line; every default is in ``--help``.  ``runs`` says what each command does."""
    parser = _Parser(prog="lsms-rt", description=f"Text-prompted lesion segmentation in CT. {NOT_FOR_DIAGNOSIS}")
    parser.add_argument("--version", action="version", version=f"lsms-rt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
        sub.add_argument("--debug", action="store_true", help="show where an error arose")
        sub.add_argument("--log-level", choices=LEVELS, default="warning", help="what is told on the way")
        sub.set_defaults(run=runs[name])
        return sub

    def json_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--json", action="store_true", help="print one JSON document and nothing else")

    sub = command("build-engine", "build an engine directory from a checkpoint")
    sub.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the bundled demo weights)")
    sub.add_argument(
        "--from", type=Path, dest="from_engine", metavar="ENGINE",
        help="plans from this onnxruntime engine; no PyTorch is needed (default: from a checkpoint)",
    )  # fmt: skip
    sub.add_argument("--backend", choices=tuple(BACKENDS), default=ONNXRUNTIME.name, help="what runs the engine")
    sub.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="arithmetic of the engine")
    sub.add_argument(
        "--image-size", type=_number(64, 4096), metavar="N", help="side of the square input (default: the checkpoint's)"
    )
    sub.add_argument("--max-batch", type=_number(1, 1024), default=8, metavar="N", help="largest batch of slices")
    sub.add_argument(
        "--opt-batch", type=_number(1, 1024), metavar="N", help="batch that plans are tuned for (default: up to 8)"
    )
    sub.add_argument(
        "--kernels", choices=("auto", "triton", "stock"), default="auto",
        help="tensorrt in fp16: our kernels as plugins, or stock operations",
    )  # fmt: skip
    plan = sub.add_argument_group("plans", "for --backend tensorrt and tensorrt-rtx")
    plan.add_argument(
        "--target",
        type=_list,
        default=(),
        dest="targets",
        metavar="SM,SM",
        help="tensorrt-rtx: GPUs, e.g. sm_86,sm_89",
    )
    plan.add_argument(
        "--workspace",
        type=_number(1, 1 << 20),
        dest="workspace_mib",
        metavar="MIB",
        help="scratch memory (default: no limit)",
    )
    plan.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="tensorrt: measured kernels, read and written (default: none)"
    )
    plan.add_argument(
        "--hardware",
        choices=("none", "same-capability", "ampere+"),
        default="none",
        help="tensorrt: GPUs beside this one",
    )
    plan.add_argument(
        "--version-compatible", action="store_true", help="tensorrt: run with newer versions of the same major"
    )
    plan.add_argument(
        "--optimization-level",
        type=_number(0, 5),
        metavar="N",
        help="tensorrt: effort (default: its own)",
    )
    sub.add_argument(
        "--verify-slices",
        type=_number(0, 10_000),
        default=8,
        metavar="N",
        help="phantom slices compared with PyTorch; 0 skips",
    )
    sub.add_argument("--force", action="store_true", help="replace an engine that exists")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.engine", help="folder to write")
    int8 = sub.add_argument_group("INT8")
    int8.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="what lsms-rt calibrate wrote; demo: for the demo weights (default: none)",
    )
    int8.add_argument(
        "--rest", choices=("fp16", "fp32"), default="fp16", help="arithmetic of the layers that are not INT8"
    )
    gate = sub.add_argument_group(
        "accuracy gate",
        "for fp16 and int8: the engine is refused (exit 4) where its answers to held-out sentences are worse than "
        "PyTorch's in fp32",
    )
    gate.add_argument(
        "--dataset", type=Path, metavar="DIR", help="data set in the RefHL-Seg layout (default: a phantom made for it)"
    )
    gate.add_argument("--split", default="test", help="of --dataset; it must not be what the engine was calibrated on")
    gate.add_argument(
        "--gate-sentences", type=_number(0, 1_000_000), default=200, metavar="N", help="sentences to ask; 0: no gate"
    )
    _drop(gate)
    gate.add_argument("--accept", action="store_true", help="write a refused engine all the same; its manifest says so")
    gate.add_argument("--report", type=Path, metavar="FILE", help="HTML to write (default: NAME.report.html)")

    sub = command("calibrate", "find the layers that can be INT8 without losing lesions, and how")
    sub.add_argument(
        "source", type=Path, metavar="ENGINE-or-CHECKPOINT", help="fp32 engine of onnxruntime, or checkpoint"
    )
    sub.add_argument("dataset", type=Path, metavar="DATASET", help="folder with annotations.csv")
    sub.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the recipe; goes on there"
    )
    _drop(sub)
    sub.add_argument(
        "--margin", type=float, default=4.0, metavar="X",
        help="take layers with this part of the noise of the largest set that passes; 1: that set",
    )  # fmt: skip
    sub.add_argument("--split", default="train", help="rows that ranges are measured on")
    sub.add_argument("--held-out-split", default="val", help="rows that INT8 is judged on")
    sub.add_argument("--slices", type=_number(1, 100_000), default=64, metavar="N", help="rows for the ranges")
    sub.add_argument("--probe", type=_number(1, 100_000), default=24, metavar="N", help="rows for each layer's effect")
    sub.add_argument("--held-out", type=_number(1, 10**6), default=400, metavar="N", help="rows for each set of layers")
    sub.add_argument(
        "--method", choices=("auto", "minmax", "percentile", "entropy"), default="auto",
        help="ranges; auto: minmax or percentile, for every layer what does it less harm",
    )  # fmt: skip
    sub.add_argument("--by", choices=("layer", "group"), default="layer", help="what is decided about; group is faster")
    sub.add_argument("--image-size", type=_number(64, 4096), metavar="N", help="of a checkpoint (default: its own)")
    sub.add_argument("--seed", type=_number(0, 2**31), default=0, metavar="N", help="of the choice of rows")
    sub.add_argument("--threads", type=_number(1, 256), metavar="N", help="CPU threads (default: one a core)")
    json_option(sub)

    sub = command("predict", "segment what a sentence asks for")
    sub.add_argument("engine", type=Path, metavar="ENGINE", help="engine directory; 'demo' is the bundled one")
    sub.add_argument(
        "input", nargs="+", type=Path, metavar="INPUT",
        help="DICOM file, folder, DICOMDIR or ZIP; NIfTI, NPY in HU, PNG",
    )  # fmt: skip
    sub.add_argument("--text", required=True, metavar="SENTENCE", help='e.g. "the cyst in the left lobe of the liver"')
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write overlays, masks, a montage and results.json; goes on there (default: print only)",
    )
    sub.add_argument(
        "--series",
        help="which one, where there are several, as the error lists them (default: the only one)",
    )
    sub.add_argument(
        "--window", type=float, nargs=2, metavar=("LEVEL", "WIDTH"),
        help="HU that an 8-bit picture shows, as 50 350 (default: such a picture is refused)",
    )  # fmt: skip
    sub.add_argument(
        "--batch", type=_number(1, 1024), metavar="N", help="slices at a time (default: the engine's largest batch)"
    )
    sub.add_argument(
        "--names", action="store_true",
        help="show files' names and sentences in messages and outputs: they may identify a patient",
    )  # fmt: skip
    sub.add_argument("--seg", action="store_true", help="write a DICOM Segmentation where something was found")
    sub.add_argument("--empty-seg", action="store_true", help="write one also where nothing was found")
    sub.add_argument("--nifti", action="store_true", help="write a mask volume in the input's geometry")
    sub.add_argument("--digest", metavar="sha256:HEX", help="refuse any other engine than this one (default: no check)")
    _threads(sub)
    json_option(sub)

    sub = command("inspect", "print what an engine is, and check its files")
    sub.add_argument("engine", type=Path, metavar="ENGINE", help="engine directory; 'demo' is the bundled one")
    json_option(sub)

    json_option(command("doctor", "say what this machine has and can run"))

    sub = command("demo", "run the bundled engine on bundled slices and draw the answers")
    sub.add_argument(
        "-o", "--output", type=Path, default=Path("lsms-demo"), metavar="DIR", help="folder for the pictures"
    )
    json_option(sub)

    sub = command("phantom", "generate RefHL-Phantom, synthetic referring CT")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new folder to write")
    sub.add_argument("--cases", type=_number(1, 1000), default=231, metavar="N", help="cases, about ten slices each")
    sub.add_argument(
        "--seed", type=_number(0, 4999), default=0, metavar="N", help="the same seed gives the same data set"
    )
    sub.add_argument("--matrix", type=_number(64, 1024), default=256, metavar="N", help="rows and columns of a slice")
    sub.add_argument("--workers", type=_number(1, 256), metavar="N", help="processes (default: one a core)")

    sub = command("evaluate", "measure an engine on a data set in the RefHL-Seg layout")
    sub.add_argument("engine", type=Path, metavar="ENGINE", help="engine directory; 'demo' is the bundled one")
    sub.add_argument("dataset", type=Path, metavar="DATASET", help="folder with annotations.csv")
    sub.add_argument("--split", help="train, val or test (default: all)")
    sub.add_argument("--limit", type=_number(1, 10**9), metavar="N", help="only the first N sentences (default: all)")
    sub.add_argument("--answers", type=Path, metavar="FILE", help="write a CSV with a line a sentence (default: none)")
    _threads(sub)
    json_option(sub)
    _bench(command, json_option)
    return parser


def joined(argv: Sequence[str]) -> list[str]:
    """``bench peers ...`` as the one command "bench peers"; a folder of such a name is given as ./peers."""
    words = list(argv)
    return [" ".join(words[:2]), *words[2:]] if words[:1] == ["bench"] and words[1:2] and words[1] in BENCH else words


PRESETS = ("tiny", "small", "base", "large")
BENCH = ("peers", "scaling", "report", "compare")


def _bench(command: Callable[[str, str], argparse.ArgumentParser], json_option: Callable[..., None]) -> None:
    sub = command("bench", "measure engines on this machine: latency, throughput, cold start, memory, energy")
    sub.add_argument(
        "engines", nargs="+", type=Path, metavar="ENGINE", help="engine directory; 'demo' is the bundled one"
    )
    sub.add_argument("--quick", action="store_true", help="a look: few samples, no energy; no figures to rely on")
    _json_file(sub)
    _threads(sub)

    sub = command("bench peers", "the same weights through PyTorch, ONNX Runtime and OpenVINO, beside our engine")
    sub.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="weights (default: random ones, with BERT-base in front)"
    )
    sub.add_argument("--preset", choices=PRESETS, default="tiny", help="of random weights")
    sub.add_argument("--image-size", type=_number(64, 4096), default=512, metavar="N", help="side of the input")
    sub.add_argument("--slices", type=_number(1, 1000), default=32, metavar="N", help="slices of the series")
    sub.add_argument("--launches", type=_number(1, 100), default=5, metavar="N", help="processes of each contender")
    sub.add_argument("--rounds", type=_number(1, 1000), default=3, metavar="N", help="series in each launch")
    sub.add_argument("--without", type=_list, default=(), metavar="NAME,NAME", help="contenders to leave out")
    sub.add_argument("--threads", type=_number(1, 256), metavar="N", help="CPU threads (default: the library's choice)")
    _json_file(sub)

    sub = command("bench scaling", "how cost grows with images, batches, sentences and series; where time goes")
    sub.add_argument("--preset", choices=PRESETS, default="tiny", help="of random weights")
    sub.add_argument(
        "--image-size", type=_number(64, 4096), default=512, metavar="N", help="side of the input on the other axes"
    )
    sub.add_argument(
        "--rounds", type=_number(1, 1000), default=9, metavar="N", help="times that each point is measured"
    )
    _json_file(sub)

    sub = command("bench report", "records of bench as Markdown and pictures")
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="what --json wrote")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")

    sub = command("bench compare", "two records of bench, and whether they differ by more than noise")
    sub.add_argument("a", type=Path, metavar="A.json", help="what --json wrote")
    sub.add_argument("b", type=Path, metavar="B.json", help="the same of another run")
    sub.add_argument(
        "--noise", type=_share, default=0.05, metavar="X", help="what two runs may differ by for no reason"
    )
    sub.add_argument("--fail-on-slower", action="store_true", help="exit 1 where a figure of B is slower")
    json_option(sub)


def _json_file(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", type=Path, metavar="FILE", help="record to write (default: print a table only)")


def _number(least: int, most: int) -> Callable[[str], int]:
    """An argparse type: a whole number within bounds."""

    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else least - 1
        if not least <= value <= most:
            given = repr(text) if re.fullmatch(r"[-+.\deE]{1,4}", text) else "that"  # not a patient's number, or name
            raise argparse.ArgumentTypeError(f"{given} is not a whole number from {least} to {most}")
        return value

    return parse


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _drop(sub: argparse._ActionsContainer) -> None:
    sub.add_argument(
        "--max-dice-drop", type=_share, default=0.005, metavar="X",
        help="what mean Dice may lose; lesions below 10 mm may lose twice that, and this share of the sentences true "
        "of nothing may be newly painted",
    )  # fmt: skip


def _share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _threads(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--threads", type=_number(1, 256), metavar="N", help="CPU threads (default: one a core)")
    sub.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1 ... (default: a GPU where the engine's backend has one)"
    )
    sub.add_argument("--no-cuda-graph", action="store_true", help="run a TensorRT engine without CUDA graphs")
