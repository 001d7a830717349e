"""``lsms-rt doctor``: report what this machine has and can run."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
from typing import Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.data import demo_engine
from lsms_rt.engine.advice import Advice, advise, default_of_openvino
from lsms_rt.engine.graph_backend import BUILD as BUILD_SIDE
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.errors import MachineError
from lsms_rt.machine import cpu, jetson
from lsms_rt.machine.cpu import Cpu
from lsms_rt.machine.gpu import Driver, query_driver
from lsms_rt.machine.jetson import Jetson

from .arguments import add_json
from .parser import Command

RUNTIME = ("numpy", "onnxruntime", "pydicom", "pillow", "tokenizers")
BUILD = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "scipy", "triton", "pycuda", "cuda-bindings")
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
    devices += f" in {', '.join(backend['precisions'])}" if "precisions" in backend else ""
    kernels = f" with {backend['kernels']} operations" if "kernels" in backend else ""
    problem = f"; {backend['missing']}: {backend['fix']}" if "missing" in backend else ""
    return f"{backend['version']}, {can}{devices}{kernels}{problem}"


def examine() -> dict[str, dict[str, Any]]:
    """Examine this machine.

    Returns:
        Section -> name -> value, in plain types.  ``runtime.works`` is whether the bundled engine runs.
    """
    processor, driver, board = cpu.find(), query_driver(), jetson.find()
    backends = _backends(driver, board)
    return {
        "machine": _machine(processor, driver, board),
        "backends": backends,
        "advice": _advice(processor, advise(processor, driver, backends)),
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
    return decoders | {"NIfTI": "present" if importlib.util.find_spec("nibabel") else "absent (pip install nibabel)"}


def _machine(processor: Cpu, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "lsms-rt": __version__,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": str(processor),
        "cores": cpu.cpu_count(),
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


def _advice(processor: Cpu, advice: Advice) -> dict[str, str]:
    """Say which build is the fastest here, why, and what is missing for it."""
    found = {"fastest build": advice.best.command, "because": advice.best.reason}
    if advice.install:
        found["install"] = advice.install
        if advice.now:
            found |= {"until then": advice.now.command}
    return found | {
        "openvino alone": f"would compute in {default_of_openvino(processor)}; our engines state their precision"
    }


def _backends(driver: Driver, board: Jetson | None) -> dict[str, dict[str, Any]]:
    """For every backend: its version, whether it builds and runs here, why not, and what to do about it."""
    found = {name: spec.load().diagnose(name, driver, board) for name, spec in BACKENDS.items()}
    # PyTorch runs checkpoints, not engines, so it has no row in the table of backends.
    return found | {"pytorch": _pytorch(driver)}


def _pytorch(driver: Driver) -> dict[str, Any]:
    """Describe PyTorch without importing it, which takes seconds."""
    version = _version("torch")
    if version == "absent":
        return {"version": None, "builds": False, "runs": False, "missing": "PyTorch", "fix": BUILD_SIDE}
    has_triton = importlib.util.find_spec("triton") is not None
    kernels = "triton" if has_triton and driver.problem is None else "stock"
    found = {"version": version, "builds": True, "runs": True, "kernels": kernels}
    if kernels == "stock":
        fix = "pip install 'lsms-rt[triton]'" if not has_triton else "the CPU runs stock operations"
        found |= {"missing": driver.problem or "Triton", "fix": fix}
    return found


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
        # Whatever is wrong belongs in the report.
        return {"works": False, "why not": f"{type(error).__name__}: {error}"}
    return {
        "works": True,
        "load ms": round((loaded - begin) * 1000),
        "first answer ms": round((answered - loaded) * 1000),
    }


COMMAND = Command(name="doctor", help="report what this machine has and can run", add_arguments=add_arguments, run=run)
