"""config.pbtxt: what Triton is told of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsms_rt import __version__
from lsms_rt.errors import InputError
from lsms_rt.serving.tensors import TEXT, config_of

# The engine's folder, beside model.py.
ENGINE = "engine"
# Parameters that model.py reads.
DIGEST, THREADS, INSTANCES, VERSION = "digest", "threads", "instances", "lsms_rt_version"
# File of the TEXT tensor that warms a model up, below ``warmup/``: one sentence.
WARMUP_TEXT = "text"
# An output that only Triton's answers have: the number of the process that gave it, one for each instance.
INSTANCE = "INSTANCE"
# Priorities of requests.
FIRST, USUAL = 1, 2
MAX_NAME = 64


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton runs a model.

    Attributes:
        name: of the model; requests name it.
        instances: number of instances, on each GPU if there are GPUs; each is a process with the engine.
        gpus: numbers of the GPUs; empty: all that the server sees.  None: the CPU.
        threads: CPU threads of an instance; None: the cores shared out among the instances.
        queue: requests that may wait; more get UNAVAILABLE.
        wait: seconds that a request may wait, then it gets UNAVAILABLE.
        environment: packed Python environment (EXECUTION_ENV_PATH), as the server sees it; None: the server's Python.
    """

    name: str
    instances: int = 1
    gpus: tuple[int, ...] | None = None
    threads: int | None = None
    queue: int = 32
    wait: int = 600
    environment: str | None = None

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "")
        if not (plain.isascii() and plain.isalnum() and len(self.name) <= MAX_NAME):
            raise InputError(f"a model's name is 1 to {MAX_NAME} letters, digits, - and _; give one with --name")
        path = self.environment
        if path is not None and not (path and all(c.isprintable() and c not in '"\\' for c in path)):
            raise InputError(
                "the path of the Python environment is empty, or has a quote, backslash or control character"
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A request that Triton sends before a model is ready.

    Attributes:
        name: of the sample.
        image: file of the IMAGE tensor, below ``warmup/``.
        shape: its shape.
    """

    name: str
    image: str
    shape: tuple[int, ...]


def config_text(options: TritonOptions, digest: str, samples: list[Sample]) -> str:
    """Return the text of config.pbtxt.

    Args:
        options: how Triton runs the model.
        digest: the engine's.
        samples: requests that warm it up.
    """
    processes = options.instances * max(1, len(options.gpus or ()))
    parameters = {
        DIGEST: digest, THREADS: str(options.threads or 0), INSTANCES: str(processes), VERSION: __version__,
        # A slice is prepared on the CPU, also for an engine on a GPU.
        "FORCE_CPU_ONLY_INPUT_TENSORS": "yes",
    }  # fmt: skip
    if options.environment is not None:
        parameters["EXECUTION_ENV_PATH"] = options.environment
    parts = [
        f"# Made by lsms-rt export-triton {__version__}.",
        f'name: "{options.name}"\nbackend: "python"',
        "# A request's slices are batches inside the engine; requests differ in shape and sentence.",
        "max_batch_size: 0",
        *(_tensor(kind, one) for kind, tensors in config_of().items() for one in tensors),
        _tensor("output", {"name": INSTANCE, "data_type": "TYPE_INT32", "dims": [1]}),
        _instances(options),
        _queue(options),
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()),
        *map(_warmup, samples),
    ]
    return "\n".join(parts) + "\n"


def _tensor(kind: str, tensor: Mapping[str, Any]) -> str:
    optional = " optional: true" if tensor.get("optional") else ""
    return f'{kind} {{ name: "{tensor["name"]}" data_type: {tensor["data_type"]} dims: {tensor["dims"]}{optional} }}'


def _instances(options: TritonOptions) -> str:
    if options.gpus is None:
        where = "kind: KIND_CPU"
    else:
        where = "kind: KIND_GPU" + (f" gpus: {list(options.gpus)}" if options.gpus else "")
    return f"instance_group {{ count: {options.instances} {where} }}"


def _queue(options: TritonOptions) -> str:
    policy = (
        f"timeout_action: REJECT default_timeout_microseconds: {options.wait * 1_000_000} "
        f"allow_timeout_override: true max_queue_size: {options.queue}"
    )
    return f"""# The queue; nothing is batched.  Requests of priority {FIRST} go first: emergencies and probes.
dynamic_batching {{
  priority_levels: {USUAL}
  default_priority_level: {USUAL}
  default_queue_policy {{ {policy} }}
}}"""


def _warmup(sample: Sample) -> str:
    image = f'data_type: TYPE_INT16 dims: {list(sample.shape)} input_data_file: "{sample.image}"'
    text = f'data_type: TYPE_STRING dims: [1] input_data_file: "{WARMUP_TEXT}"'
    return (
        f'model_warmup {{\n  name: "{sample.name}" batch_size: 1\n'
        f'  inputs {{ key: "IMAGE" value {{ {image} }} }}\n  inputs {{ key: "{TEXT}" value {{ {text} }} }}\n}}'
    )
