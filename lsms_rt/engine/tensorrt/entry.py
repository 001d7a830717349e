"""The two TensorRT libraries as rows of the table of backends: the functions of ``registry.BackendModule``."""

from __future__ import annotations

import importlib.util
from typing import Any

from lsms_rt.engine.manifest import EngineDirectory
from lsms_rt.errors import MachineError
from lsms_rt.machine.gpu import Driver
from lsms_rt.machine.jetson import Jetson

from .backend import TensorRtBackend
from .variant import RTX_TARGETS, VARIANTS, load

PYCUDA = "pip install pycuda (needs nvcc on the PATH)"


def open_engine(
    engine: EngineDirectory, threads: int | None, kind: str | None, index: int, cuda_graph: bool
) -> TensorRtBackend:
    return TensorRtBackend(engine, index, cuda_graph)


def library_version(name: str) -> str:
    return str(load(VARIANTS[name]).__version__)


def check_machine(precision: str, rest: str | None) -> None:
    """What a GPU cannot do, its builder says."""


def gpu_index(kind: str | None, index: int) -> int | None:
    return index


def diagnose(name: str, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    variant = VARIANTS[name]
    absent: dict[str, Any] = {"version": None, "builds": False, "runs": False}
    if board is not None and variant.portable:
        return absent | {"missing": "Jetson support", "fix": "use the tensorrt backend"}
    try:
        version = library_version(name)
    except MachineError as error:
        fix = "sudo apt install nvidia-jetpack, and a venv that sees it: python3 -m venv --system-site-packages"
        return absent | {"missing": str(error)} | ({"fix": fix} if board else {})
    found: dict[str, Any] = {"version": version, "builds": variant.portable or driver.problem is None, "runs": False}
    if driver.problem:
        more = "" if _has("pycuda") else f", then {PYCUDA}"
        more += "; engines for GPUs elsewhere can be built here" if variant.portable else ""
        return found | {"missing": driver.problem, "fix": f"install or update the NVIDIA driver{more}"}
    if variant.cuda and driver.cuda < variant.cuda:
        needed = ".".join(map(str, variant.cuda))
        return found | {"missing": f"a driver for CUDA {needed}", "fix": "update the NVIDIA driver"}
    if variant.portable and not any(gpu.arch in RTX_TARGETS for gpu in driver.gpus):
        names = ", ".join(f"{gpu.name} ({gpu.arch})" for gpu in driver.gpus)
        return found | {"missing": f"support of {names}", "fix": "use the tensorrt backend"}
    if not _has("pycuda"):
        return found | {"missing": "pycuda", "fix": PYCUDA}
    if not variant.own_graphs and not _has("cuda.bindings"):
        found |= {"missing": "cuda-bindings, so that it runs without CUDA graphs", "fix": "pip install cuda-bindings"}
    return found | {"runs": True}


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # Not even the package that holds it is installed.
        return False
