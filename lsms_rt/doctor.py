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
DECODERS = {  # transfer syntax and the packages that decode it
    "JPEG": ("1.2.840.10008.1.2.4.50", "pillow"),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", "python-gdcm"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "pylibjpeg pylibjpeg-openjpeg"),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", "pylibjpeg pylibjpeg-openjpeg"),
    "RLE": ("1.2.840.10008.1.2.5", "pydicom"),
}


def examine() -> dict[str, dict[str, Any]]:
    """Sections of names and values, in plain types; ``runtime.works`` says whether the bundled engine answers."""
    return {
        "machine": _machine(),
        "runtime": {name: _version(name) for name in RUNTIME} | _try_engine(),
        "build": {name: _version(name) for name in BUILD},
        "decoders": _decoders(),
    }


def _decoders() -> dict[str, str]:
    from pydicom.pixels import get_decoder

    found = {}
    for name, (syntax, packages) in DECODERS.items():
        found[name] = "present" if get_decoder(syntax).is_available else f"absent (pip install {packages})"
    nifti = importlib.util.find_spec("nibabel")
    return found | {"NIfTI": "present" if nifti else "absent (pip install nibabel)"}


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
