"""``lsms-rt export-triton``: an engine as a model of NVIDIA Triton Inference Server."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lsms_rt.errors import one_line

from .arguments import DEMO, add_digest, add_json, add_threads, engine_path, whole_number
from .parser import Command
from .terminal import status

GPUS = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", help="engine directory; 'demo' is the bundled engine")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="model repository, which may hold other models; created if there is none",
    )  # fmt: skip
    parser.add_argument("--name", metavar="N", help="of the model (default: that of the engine's folder)")
    parser.add_argument(
        "--instances", type=whole_number(1, 64), default=1, metavar="N",
        help="processes with the engine, on each GPU if there are GPUs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gpus", type=whole_number(0, GPUS), nargs="*", metavar="I",
        help="run on these GPUs, or on all (default: on the CPU)",
    )  # fmt: skip
    add_threads(parser, "the cores shared out among the instances")
    parser.add_argument(
        "--queue", type=whole_number(1, 10_000), default=32, metavar="N",
        help="requests that may wait; more get UNAVAILABLE (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=whole_number(1, 86_400), default=600, metavar="S",
        help="seconds that a request may wait, then it gets UNAVAILABLE (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--environment", metavar="PATH",
        help="path of a Python with lsms-rt, as the server sees it: EXECUTION_ENV_PATH (default: the server's own)",
    )  # fmt: skip
    add_digest(parser)
    parser.add_argument(
        "--trust", action="store_true",
        help="export a version-compatible TensorRT engine, whose code the server then runs; --digest does too",
    )  # fmt: skip
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.triton_server.config import TritonOptions
    from lsms_rt.triton_server.export import export_model

    demo = arguments.engine == DEMO
    name = DEMO if demo else Path(arguments.engine).resolve().name.removesuffix(".engine")
    options = TritonOptions(
        name=name if arguments.name is None else arguments.name,
        instances=arguments.instances,
        gpus=None if arguments.gpus is None else tuple(arguments.gpus),
        threads=arguments.threads,
        queue=arguments.queue,
        wait=arguments.wait,
        environment=arguments.environment,
    )
    done = export_model(
        engine_path(arguments.engine), arguments.output, options, digest=arguments.digest,
        trust_host_code=arguments.trust,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps({"folder": str(done.folder), "digest": done.digest, "files": done.files}, indent=2))
        return
    print(f"{one_line(done.folder)}: {len(done.files)} files, {sum(done.files.values()) / 1e6:.1f} MB")
    for file, size in sorted(done.files.items()):
        print(f"  {file:34} {size:>12,} bytes")
    print(f"engine {done.digest}")
    status(f"tritonserver --model-repository {one_line(arguments.output)}   (docs/triton.md; not a medical device)")


COMMAND = Command(
    name="export-triton", help="write a model repository for NVIDIA Triton Inference Server",
    add_arguments=add_arguments, run=run,
)  # fmt: skip
