"""``lsms-rt serve``: engines behind HTTP."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from lsms_rt.api_key import read_key
from lsms_rt.errors import InputError, MachineError

from .arguments import DEMO, add_runtime, engine_path, runtime_options, whole_number
from .libraries import check_libraries
from .parser import Command
from .terminal import status

PORT = 8765
LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "nibabel", "blosc2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "engine", nargs="+", metavar="ENGINE",
        help="engine directory, by whose name requests name it; 'demo' is the bundled engine; NAME=DIR gives another "
        "name",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H",
        help="address to listen on; one that others can reach needs a key (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--port", type=whole_number(1, 65535), default=PORT, metavar="P", help="(default: %(default)s)")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="F",
        help="file with the key that requests must bear (default: LSMS_RT_API_KEY, else no key)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=whole_number(1, 64), metavar="N",
        help="worker processes, each with all engines (default: one per GPU in --devices, else 1)",
    )  # fmt: skip
    parser.add_argument(
        "--devices",
        nargs="+",
        default=[],
        metavar="NAME",
        help="one per worker, e.g. cuda:0 cuda:1 (default: --device)",
    )
    parser.add_argument(
        "--queue", type=whole_number(1, 10_000), default=32, metavar="N",
        help="tasks that may wait; more are answered with 429 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=whole_number(1, 86_400), default=600, metavar="S",
        help="seconds that a task may run (default: %(default)s)",
    )  # fmt: skip
    add_runtime(parser)


def run(arguments: argparse.Namespace) -> None:
    check_libraries("serve", LIBRARIES, "serve,client")
    from lsms_rt.serving.access import check_host
    from lsms_rt.serving.app import create_app
    from lsms_rt.serving.settings import Settings
    from lsms_rt.serving.stopping import listen

    key = read_key(arguments.api_key_file, os.environ)
    check_host(arguments.host, key)
    runtime = runtime_options(arguments)
    threads, device = runtime.pop("threads"), runtime.pop("device")
    devices = tuple(arguments.devices) or ((device,) if device else ())
    settings = Settings(
        models=_models(arguments.engine),
        workers=arguments.workers or max(1, len(arguments.devices)),
        devices=devices, threads=threads, runtime=runtime, api_key=key, queue=arguments.queue,
        time_limit=float(arguments.time_limit),
    )  # fmt: skip
    _check_port(arguments.host, arguments.port)
    app = create_app(settings)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    status(f"http://{host}:{arguments.port}  (research software, not a medical device; Ctrl-C stops)")
    listen(app, arguments.host, arguments.port, settings.grace)


def _check_port(host: str, port: int) -> None:
    """Raise MachineError where it cannot be listened, before an engine is opened and an address is told."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        fix = "end what listens there, or choose another --port or --host"
        raise MachineError(f"port {port} of this host cannot be used ({error.strerror}); {fix}") from error


def _models(texts: list[str]) -> tuple:
    from lsms_rt.serving.settings import Model

    models = []
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator:
            path = text
            name = DEMO if text == DEMO else Path(text).name.removesuffix(".engine")
        models.append(Model(name=name, path=engine_path(path)))
    names = [model.name for model in models]
    if len(set(names)) < len(names) or not all(name.replace("-", "").replace("_", "").isalnum() for name in names):
        raise InputError("two engines have one name, or a name is not letters, digits, - and _; give NAME=DIR")
    return tuple(models)


COMMAND = Command(name="serve", help="answer requests over HTTP", add_arguments=add_arguments, run=run)
