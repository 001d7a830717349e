"""``lsms-rt doctor``: report what this machine has and can run."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from typing import Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.data import demo_engine
from lsms_rt.engine.tensorrt.variant import RTX_TARGETS, VARIANTS, TensorRtVariant, load
from lsms_rt.errors import MachineError
from lsms_rt.machine import jetson
from lsms_rt.machine.gpu import Driver, look
from lsms_rt.machine.jetson import Jetson

from .arguments import add_json
from .parser import Command

RUNTIME = ("numpy", "onnxruntime", "pydicom", "pillow", "tokenizers")
BUILD = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "scipy", "triton", "pycuda", "cuda-bindings")
USE_TENSORRT = "use the tensorrt backend"
# Transfer syntax, and the packages that decode it.
DECODERS = {
    "JPEG": ("1.2.840.10008.1.2.4.50", "pillow"),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", "python-gdcm"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "pylibjpeg pylibjpeg-openjpeg"),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", "pylibjpeg pylibjpeg-openjpeg"),
    "RLE": ("1.2.840.10008.1.2.5", "pydicom"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    report = examine()
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for section, lines in report.items():
            for name, value in lines.items():
                print(f"{section:9} {name:20} {backend_line(value) if isinstance(value, dict) else value}")
    if not report["runtime"]["works"]:
        raise MachineError(
            f"the bundled engine does not run on this machine ({report['runtime']['why not']}); fix the problems "
            "listed above"
        )


def backend_line(backend: dict[str, Any]) -> str:
    """Describe a backend in one line."""
    if backend["version"] is None:
        return "; ".join(filter(None, (f"absent: {backend['missing']}", backend.get("fix"))))
    can = ", ".join(f"{what} here: {'yes' if backend[what] else 'no'}" for what in ("builds", "runs"))
    devices = f" on {', '.join(backend['devices'])}" if "devices" in backend else ""
    kernels = f" with {backend['kernels']} operations" if "kernels" in backend else ""
    problem = f"; {backend['missing']}: {backend['fix']}" if "missing" in backend else ""
    return f"{backend['version']}, {can}{devices}{kernels}{problem}"


def examine() -> dict[str, dict[str, Any]]:
    """Examine this machine.

    Returns:
        Section -> name -> value, in plain types.  ``runtime.works`` is whether the bundled engine runs.
    """
    driver, board = look(), jetson.find()
    return {
        "machine": _machine(driver, board),
        "backends": _backends(driver, board),
        "runtime": {name: _version(name) for name in RUNTIME} | _try_engine(),
        "build": {name: _version(name) for name in BUILD},
        "decoders": _decoders(),
    }


def _decoders() -> dict[str, str]:
    from pydicom.pixels import get_decoder

    decoders = {
        name: "present" if get_decoder(syntax).is_available else f"absent (pip install {packages})"
        for name, (syntax, packages) in DECODERS.items()
    }
    return decoders | {"NIfTI": "present" if _has("nibabel") else "absent (pip install nibabel)"}


def _machine(driver: Driver, board: Jetson | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "lsms-rt": __version__,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
    if board is not None:
        facts["jetson"] = (
            f"{board.model}, L4T {board.l4t or 'unknown'}, JetPack {board.jetpack or 'not installed as a package'}"
        )
        facts["power mode"] = board.power_mode or "unknown (nvpmodel -q)"
    facts["nvidia driver"] = driver.problem or f"runs CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    for number, gpu in enumerate(driver.gpus):
        memory = f"{gpu.memory / 2**30:.0f} GiB{' shared with the CPU' if gpu.integrated else ''}"
        facts[f"gpu {number}"] = f"{gpu.name}, {gpu.arch}, {memory}"
    return facts


def _backends(driver: Driver, board: Jetson | None) -> dict[str, dict[str, Any]]:
    """Describe each backend: its version, whether it builds and runs here, and if not, why and how to fix it."""
    tensorrt = {variant.name: _tensorrt(variant, driver, board) for variant in VARIANTS.values()}
    return {"onnxruntime": _onnxruntime(driver), "pytorch": _pytorch(driver)} | tensorrt


def _onnxruntime(driver: Driver) -> dict[str, Any]:
    import onnxruntime

    names = {"TensorrtExecutionProvider": "tensorrt", "CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}
    compiled_in = [names[name] for name in onnxruntime.get_available_providers() if name in names]
    devices = compiled_in if driver.problem is None else ["cpu"]
    builds = all(importlib.util.find_spec(name) for name in ("torch", "onnx", "onnxscript", "transformers"))
    return {"version": onnxruntime.__version__, "builds": builds, "runs": True, "devices": devices} | (
        {} if builds else {"missing": "packages to build engines", "fix": "pip install 'lsms-rt[build]'"}
    )


def _pytorch(driver: Driver) -> dict[str, Any]:
    """Describe PyTorch without importing it, which takes seconds."""
    version = _version("torch")
    if version == "absent":
        return _absent("PyTorch", "pip install 'lsms-rt[build]'")
    has_triton = importlib.util.find_spec("triton") is not None
    kernels = "triton" if has_triton and driver.problem is None else "stock"
    found = {"version": version, "builds": True, "runs": True, "kernels": kernels}
    if kernels == "stock":
        fix = "pip install 'lsms-rt[triton]'" if not has_triton else "the CPU runs stock operations"
        found |= {"missing": driver.problem or "Triton", "fix": fix}
    return found


def _tensorrt(variant: TensorRtVariant, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    if board is not None and variant.portable:
        return _absent("Jetson support", USE_TENSORRT)
    fix = variant.install
    if board is not None:
        fix = "sudo apt install nvidia-jetpack, and a venv that sees it: python3 -m venv --system-site-packages"
    try:
        version = load(variant).__version__
    except MachineError as error:
        # The error ends with the usual way to install it.
        return _absent(str(error), fix if board else None)
    found: dict[str, Any] = {"version": version, "builds": variant.portable or driver.problem is None, "runs": False}
    if driver.problem:
        more = "" if _has("pycuda") else ", then pip install pycuda (needs nvcc on the PATH)"
        more += "; engines for GPUs elsewhere can be built here" if variant.portable else ""
        return found | {"missing": driver.problem, "fix": f"install or update the NVIDIA driver{more}"}
    if variant.cuda and driver.cuda < variant.cuda:
        needed = ".".join(map(str, variant.cuda))
        return found | {"missing": f"a driver for CUDA {needed}", "fix": "update the NVIDIA driver"}
    if variant.portable and not any(gpu.arch in RTX_TARGETS for gpu in driver.gpus):
        names = ", ".join(f"{gpu.name} ({gpu.arch})" for gpu in driver.gpus)
        return found | {"missing": f"support for {names}", "fix": USE_TENSORRT}
    if not _has("pycuda"):
        return found | {"missing": "pycuda", "fix": "pip install pycuda (needs nvcc on the PATH)"}
    if not variant.own_graphs and not _has("cuda.bindings"):
        found |= {"missing": "cuda-bindings, so that it runs without CUDA graphs", "fix": "pip install cuda-bindings"}
    return found | {"runs": True}


def _absent(missing: str, fix: str | None) -> dict[str, Any]:
    """Describe a backend that is not installed, or not supported here."""
    return {"version": None, "builds": False, "runs": False, "missing": missing} | ({"fix": fix} if fix else {})


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # Its parent package is missing, too.
        return False


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _try_engine() -> dict[str, Any]:
    """Load the bundled engine and segment a slice."""
    from lsms_rt.segmenter import Segmenter

    try:
        begin = time.perf_counter()
        with Segmenter(demo_engine()) as segmenter:
            loaded = time.perf_counter()
            segmenter.predict(np.full((64, 64), -1000.0, np.float32), "the cyst in the left lobe of the liver")
            answered = time.perf_counter()
    except Exception as error:
        # Whatever is wrong belongs into the report.
        return {"works": False, "why not": f"{type(error).__name__}: {error}"}
    return {
        "works": True,
        "load ms": round((loaded - begin) * 1000),
        "first answer ms": round((answered - loaded) * 1000),
    }


COMMAND = Command(name="doctor", help="report what this machine has and can run", add_arguments=add_arguments, run=run)
