"""``lsms-rt bench`` and its subcommands: measure engines, and report and compare the records."""

from __future__ import annotations

import argparse
import json
import re
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsms_rt.bench.options import NOISE, EngineOptions, PeersOptions, ScalingOptions, ServeOptions
from lsms_rt.bench.records import ENGINES, PEERS, SCALING, add_output_options, put, read, record_of
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.engine.vocabulary import PRECISIONS
from lsms_rt.errors import InputError
from lsms_rt.machine.gpu import query_driver
from lsms_rt.model.config import PRESETS

from .arguments import (
    add_image_size,
    add_json,
    add_runtime,
    add_threads,
    engine_path,
    fraction,
    options_from,
    runtime_options,
    whole_number,
)
from .exit_codes import ExitCode
from .parser import Command
from .terminal import status

# Packages whose versions matter for measurements on a GPU.
GPU_PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-libs", "pycuda")


def _add_engines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "engines", nargs="+", type=engine_path, metavar="ENGINE",
        help="engine directory; 'demo' is the bundled engine",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="few samples and little warm-up, no energy; do not publish the figures"
    )
    parser.add_argument(
        "--digest", dest="digests", action="append", metavar="sha256:HEX",
        help="reject an engine if its digest differs; once for each engine, in their order (default: no check)",
    )  # fmt: skip
    add_output_options(parser)
    add_runtime(parser)


def run_engines(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.engine import measure_engine

    check_output(arguments.output)
    names = [path.name for path in arguments.engines]
    if len(set(names)) < len(names):
        raise InputError("two engines have the same name and would share a row of the table; rename a folder")
    digests = arguments.digests or [None] * len(names)
    if len(digests) != len(names):
        raise InputError(f"{len(digests)} --digest for {len(names)} engines; give one for each, in their order")
    options = EngineOptions(**runtime_options(arguments))
    if arguments.quick:
        options = options.quick()
    engines = {}
    for path, digest in zip(arguments.engines, digests, strict=True):

        def say(text: str, name: str = path.name) -> None:
            status(f"{name}: {text}")

        engines[path.name] = measure_engine(path, options, say, digest)
    gpu = next((engine["engine"]["gpu"] for engine in engines.values() if engine["engine"]["gpu"]), None)
    print_record(record_of(ENGINES, ("onnxruntime", "numpy", *GPU_PACKAGES), gpu, engines=engines), arguments)


def _add_peers(parser: argparse.ArgumentParser) -> None:
    defaults = PeersOptions
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR",
        help="weights (default: random weights, with BERT-base as the text encoder)",
    )  # fmt: skip
    _add_preset(parser, defaults.preset)
    add_image_size(parser, defaults.image_size, "")
    parser.add_argument(
        "--slices", type=whole_number(1, 1000), default=defaults.slices, metavar="N", help="slices of the series"
    )
    parser.add_argument(
        "--launches", type=whole_number(1, 100), default=defaults.launches, metavar="N",
        help="processes per contender",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=whole_number(1, 1000), default=defaults.rounds, metavar="N", help="rounds per launch"
    )
    parser.add_argument(
        "--without", default="", metavar="NAME,NAME", help="contenders to leave out, by name (default: none)"
    )
    add_threads(parser, "the library's choice")
    add_output_options(parser)


def run_peers(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.peers.contenders import CONTENDERS, OURS
    from lsms_rt.bench.peers.prepare import prepare
    from lsms_rt.bench.peers.side_by_side import random_inputs, run

    check_output(arguments.output)
    known = tuple(contender.name for contender in CONTENDERS)
    without = split_names(arguments.without, tuple(name for name in known if name != OURS))
    names = tuple(name for name in known if name not in without)
    options = options_from(PeersOptions, arguments, seed=PeersOptions.seed, names=names)
    with tempfile.TemporaryDirectory(prefix="lsms-peers-") as folder:
        work = Path(folder)
        status("preparing the checkpoint, the naive graphs and the engines (minutes)")
        weights = prepare(work, options.checkpoint, options.preset, options.image_size, names)
        random_inputs(options, work, options.image_size, weights.pop("max_tokens"), weights.pop("vocabulary"))
        results = run(work, options, status)
    on_gpu = any(contender.gpu and contender.name in names and not contender.absent for contender in CONTENDERS)
    gpu = query_driver().gpus[0].name if on_gpu else None
    packages = ("torch", "onnxruntime", "openvino", "numpy", *GPU_PACKAGES)
    print_record(record_of(PEERS, packages, gpu, **weights, **results), arguments)


def split_names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Split ``--without``; the names of contenders may contain commas, too: the longest that fits is meant.

    Raises:
        InputError: there is no contender of a name.
    """
    names, rest = [], text.strip()
    while rest:
        fitting = [name for name in known if rest == name or re.match(rf"{re.escape(name)}\s*,", rest)]
        if not fitting:
            raise InputError(f"--without {rest}; choose from {'; '.join(known)}")
        names.append(max(fitting, key=len))
        rest = rest.removeprefix(names[-1]).lstrip(", ")
    return tuple(names)


def _add_scaling(parser: argparse.ArgumentParser) -> None:
    defaults = ScalingOptions
    on_cpu = tuple(name for name, spec in BACKENDS.items() if not spec.needs_gpu)
    parser.add_argument("--backend", choices=on_cpu, default=defaults.backend, help="runtime of the engines")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=defaults.precision,
        help="arithmetic of the engines; int8 is calibrated with noise, for its speed alone",
    )  # fmt: skip
    _add_preset(parser, defaults.preset)
    add_image_size(parser, defaults.image_size, ", where it is not what varies")
    parser.add_argument(
        "--rounds", type=whole_number(1, 1000), default=defaults.rounds, metavar="N",
        help="measurements of each point",
    )  # fmt: skip
    add_output_options(parser)


def run_scaling(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.scaling.axes import measure_scaling

    check_output(arguments.output)
    options = ScalingOptions(
        backend=arguments.backend, precision=arguments.precision, preset=arguments.preset,
        image_size=arguments.image_size, rounds=arguments.rounds,
    )  # fmt: skip
    packages = ("torch", "onnxruntime", "openvino", "numpy")
    print_record(record_of(SCALING, packages, **measure_scaling(options, status)), arguments)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "engine", type=engine_path, metavar="ENGINE", help="engine directory; 'demo' is the bundled engine"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a second for each measurement; do not publish the figures"
    )
    add_threads(parser, "the worker's share of the cores")
    add_output_options(parser)


def run_serve(arguments: argparse.Namespace) -> None:
    from .libraries import check_libraries
    from .serve import LIBRARIES

    check_output(arguments.output)
    check_libraries("serve", (*LIBRARIES, "httpx"), "serve,client")
    from lsms_rt.bench.serve import measure

    options = ServeOptions(threads=arguments.threads)
    print_record(measure(arguments.engine, options.quick() if arguments.quick else options, status), arguments)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="record that bench -o wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")


def run_report(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.report import write_report

    for path in write_report(arguments.files, arguments.output):
        print(path)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A.json", help="record that bench -o wrote")
    parser.add_argument("b", type=Path, metavar="B.json", help="record of the same kind from another run")
    parser.add_argument(
        "--noise", type=fraction, default=NOISE, metavar="X", help="relative run-to-run variation to ignore"
    )
    parser.add_argument("--fail-on-slower", action="store_true", help="exit with code 1 if a figure of B is slower")
    add_json(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    from lsms_rt.bench.compare import MIN_SAMPLES, PROCESS, compare
    from lsms_rt.bench.tables import compare_table

    a, b = read(arguments.a), read(arguments.b)
    differences, cautions = compare(a, b, arguments.noise)
    if arguments.json:
        print(
            json.dumps(
                {"differences": [row.to_dict() for row in differences], "cautions": cautions}, indent=2, allow_nan=False
            )
        )
    else:
        print(compare_table(differences))
        if any(row.verdict == "unclear" for row in differences):
            noise = f"{arguments.noise:.0%}, for two processes' latencies {max(arguments.noise, PROCESS):.0%}"
            print(f"unclear: the interval reaches into the noise ({noise}), or is of fewer than {MIN_SAMPLES} samples")
        for caution in cautions:
            status(f"warning: {caution}")
    # A peer that became slower is not a failure of ours.
    ours = [row for row in differences if a["kind"] != PEERS or row.name in _names_of_ours(a) or "times" in row.unit]
    slower = [row.name for row in ours if row.verdict == "slower"]
    if slower and arguments.fail_on_slower:
        status(f"slower: {', '.join(slower)}")
        return ExitCode.FAILED
    return ExitCode.DONE


def _names_of_ours(record: dict[str, Any]) -> set[str]:
    from lsms_rt.bench.values import is_ours

    return {row["name"] for row in record["rows"] if is_ours(row)}


def join_subcommand(argv: Sequence[str]) -> list[str]:
    """Join ``bench peers`` into the one command "bench peers"; an engine with such a name is passed as ./peers."""
    words = list(argv)
    first_two = " ".join(words[:2])
    return [first_two, *words[2:]] if any(first_two == command.name for command in COMMANDS[1:]) else words


def _add_preset(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--preset", choices=tuple(PRESETS), default=default, help="preset of the random weights")


def check_output(path: Path | None) -> None:
    """Raise :class:`InputError` if the record cannot be written, before the expensive steps; leaves nothing behind."""
    if path is None:
        return
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"-o {path}: is not a file; give another name")
        # The folder may be missing, and is made when the record is written.
        with tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
            pass
    except OSError as error:
        raise InputError(f"-o {path}: cannot be written ({error.strerror}); give another file") from error


def print_record(record: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print a record, as a table or JSON, and write it if a file was requested."""
    from lsms_rt.bench.tables import markdown

    path: Path | None = arguments.output
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    put(record, markdown(record), arguments)
    if path is not None:
        status(f"record written to {path}; for pictures: lsms-rt bench report {path} -o DIR")


COMMANDS = (
    Command(
        name="bench",
        help="measure engines on this machine: latency, throughput, cold start, memory, energy",
        add_arguments=_add_engines,
        run=run_engines,
    ),
    Command(
        name="bench peers",
        help="compare our engine with PyTorch, ONNX Runtime and OpenVINO, all with the same weights",
        add_arguments=_add_peers,
        run=run_peers,
    ),
    Command(
        name="bench scaling",
        help="measure how time grows with image size, batch, sentence length and number of slices",
        add_arguments=_add_scaling,
        run=run_scaling,
    ),
    Command(
        name="bench serve",
        help="measure lsms-rt serve: what it adds to a request, many clients, faults",
        add_arguments=_add_serve,
        run=run_serve,
    ),
    Command(
        name="bench report",
        help="turn records of bench into Markdown and pictures",
        add_arguments=_add_report,
        run=run_report,
    ),
    Command(
        name="bench compare",
        help="compare two records of bench: which differences exceed the noise",
        add_arguments=_add_compare,
        run=run_compare,
    ),
)
