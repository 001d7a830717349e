"""What this machine has: ``lsms-rt doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from typing import Any

import numpy as np

from . import __version__
from .data import demo_engine

RUNTIME = ("numpy", "onnxruntime", "pydicom", "pillow", "tokenizers")
BUILD = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "safetensors",
    "scipy",
    "triton",
    "tensorrt",
    "pycuda",
)
DECODERS = {
    "JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "JPEG-LS": ("jpeg_ls", "pyjpegls"),
    "JPEG lossless": ("gdcm", "python-gdcm"),
    "NIfTI": ("nibabel", "nibabel"),
}


def examine() -> dict[str, dict[str, Any]]:
    """Sections of names and values, in plain types; ``runtime.works`` says whether the bundled engine answers."""
    return {
        "machine": _machine(),
        "runtime": {name: _version(name) for name in RUNTIME} | _try_engine(),
        "build": {name: _version(name) for name in BUILD},
        "decoders": {
            name: "present" if importlib.util.find_spec(module) else f"absent (pip install {package})"
            for name, (module, package) in DECODERS.items()
        },
    }


def _machine() -> dict[str, Any]:
    return {
        "lsms-rt": __version__,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "nvidia driver": "present" if shutil.which("nvidia-smi") else "absent",
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _try_engine() -> dict[str, Any]:
    """Load the bundled engine and ask it something."""
    from .segmenter import Segmenter

    try:
        begin = time.perf_counter()
        with Segmenter(demo_engine()) as segmenter:
            loaded = time.perf_counter()
            segmenter.predict(np.full((64, 64), -1000.0, np.float32), "the cyst in the left lobe of the liver")
            answered = time.perf_counter()
    except Exception as error:  # a doctor reports whatever is wrong
        return {"works": False, "why not": f"{type(error).__name__}: {error}"}
    return {
        "works": True,
        "load ms": round((loaded - begin) * 1000),
        "first answer ms": round((answered - loaded) * 1000),
    }
