"""Tile sizes that were found by measuring, for one GPU and one Triton: plain JSON, made by ``lsms_rt.bench.gpu.tune``.

A file holds ``gpu`` and ``triton``, which must both be this machine's, and for every ``kernel/shape`` the keyword
arguments of that kernel's ``launch``, and the ``batch`` that they were measured at; they serve every batch.  What no
file names runs with the defaults in the kernels' own files.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .launch import Launch
from .shape import Shape

Plan = TypeVar("Plan", Launch, tuple[Launch, Launch, Launch])  # what a kernel's ``launch`` returns

SEE_ROWS = ("depthwise", "depthwise_direct")  # to all other kernels a map is a row of pixels
FOLDER = Path(__file__).parent / "tuned"  # shipped with the package
VARIABLE = "LSMS_RT_TUNED"  # a folder of the user's own files, read first
log = logging.getLogger("lsms_rt")


def planned(launch: Callable[..., Plan], shape: Shape) -> Plan:
    """``launch(shape)``, with the tile sizes chosen for the current GPU where there are such."""
    plan: Plan = _planned(launch, shape, _device())
    return plan


def key(launch: Callable[..., object], shape: Shape) -> str:
    """What a file calls a kernel at a shape: ``gate_mix/c64_p16384_t32_fp16``; rows and columns where it sees them."""
    name = launch.__module__.rpartition(".")[2]
    size = f"h{shape.height}_w{shape.width}" if name in SEE_ROWS else f"p{shape.pixels}"
    return f"{name}/c{shape.channels}_{size}_t{shape.tokens}_{shape.dtype}"


def file_name(gpu: str, triton: str) -> str:
    """``nvidia-h100-80gb-hbm3_triton-3.6.0.json``"""
    return f"{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}_triton-{triton}.json"


def write(folder: Path, gpu: str, triton: str, batch: int, tiles: dict[str, dict[str, Any]]) -> Path:
    """Add ``tiles``, an empty one for "the default is best", to the GPU's file; what it has of other shapes stays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(gpu, triton)
    known: dict[str, Any] = json.loads(path.read_text())["tiles"] if path.is_file() else {}
    known |= {name: {"tiles": chosen, "batch": batch} for name, chosen in tiles.items()}
    path.write_text(json.dumps({"gpu": gpu, "triton": triton, "tiles": known}, indent=1, sort_keys=True) + "\n")
    return path


@functools.cache
def read(gpu: str, triton: str) -> dict[str, dict[str, Any]]:
    """``kernel/shape`` -> ``{"tiles", "batch"}`` for a GPU and a Triton version; empty where nobody has measured."""
    folders = [Path(os.environ[VARIABLE])] if VARIABLE in os.environ else []
    for folder in (*folders, FOLDER):
        path = folder / file_name(gpu, triton)
        if not path.is_file():
            continue
        record = json.loads(path.read_text())
        if (record.get("gpu"), record.get("triton")) != (gpu, triton) or not isinstance(record.get("tiles"), dict):
            raise ValueError(
                f"{path} is not for {gpu} and Triton {triton}; make it again: python -m lsms_rt.bench.gpu.tune"
            )
        tiles: dict[str, dict[str, Any]] = record["tiles"]
        return tiles
    log.info("no tuned tile sizes for %s and Triton %s; the defaults are used", gpu, triton)
    return {}


@functools.cache
def _planned(launch: Callable[..., Any], shape: Shape, device: tuple[str, str] | None) -> Any:
    chosen = {} if device is None else read(*device).get(key(launch, shape), {})
    return launch(shape, **chosen.get("tiles", {}))


def _device() -> tuple[str, str] | None:
    """Name of the current GPU and Triton's version; None where the interpreter runs on the CPU."""
    import torch
    import triton

    return (torch.cuda.get_device_name(), triton.__version__) if torch.cuda.is_available() else None
