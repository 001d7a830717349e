"""Tuned tile sizes for one GPU and one Triton version: JSON files made by ``lsms_rt.bench.gpu.tune``.

A file holds ``gpu`` and ``triton``, which must both match this machine, and for every ``kernel/shape`` the keyword
arguments of that kernel's ``launch``, and the ``batch`` that they were measured with; they are used for every batch.
``chain/shape`` holds the ``name`` of the chain of kernels.
Kernels and shapes that are in no file run with the defaults of ``launch``.
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

import torch

from lsms_rt.atomic import write_text

from .launch import Launch
from .shape import DecoderShape, RestShape, Shape

# What a kernel's ``launch`` returns.
Plan = TypeVar("Plan", Launch, tuple[Launch, Launch, Launch])

# Kernels that depend on height and width; for all others only their product matters.
SEE_ROWS = ("depthwise", "depthwise_direct", "depthwise3_gelu", "merge_scales")
# Kernels at a RestShape that see one of its two numbers of channels.
SEE_ONE = {"inner": "channels", "outer": "channels", "depthwise3_gelu": "expanded", "stage_norm": "channels"}
# Shipped with the package.
FOLDER = Path(__file__).parent / "tuned"
# Environment variable: a folder of the user's own files, read first.
VARIABLE = "LSMS_RT_TUNED"
log = logging.getLogger("lsms_rt")


def planned(launch: Callable[..., Plan], shape: Shape) -> Plan:
    """Call ``launch(shape)`` with the tile sizes tuned for the current GPU, if there are any."""
    plan: Plan = _planned(launch, shape, _device())
    return plan


def settings(name: str, shape: Shape) -> dict[str, Any]:
    """Return what was tuned for the current GPU under a name, {} if nothing; under "chain", its ``name``."""
    device = _device()
    entry = {} if device is None else read(*device).get(key_of(name, shape), {})
    tiles: dict[str, Any] = entry.get("tiles", {})
    return tiles


def key(launch: Callable[..., object], shape: Shape) -> str:
    """Return the key of a kernel at a shape in a file, e.g. ``gate_mix/c64_p16384_t32_fp16``."""
    return key_of(launch.__module__.rpartition(".")[2], shape)


def key_of(name: str, shape: Shape) -> str:
    """Return the key of a kernel's name, or of "chain", at a shape."""
    size = f"h{shape.height}_w{shape.width}" if name in SEE_ROWS else f"p{shape.pixels}"
    if isinstance(shape, RestShape):
        channels = getattr(shape, SEE_ONE[name]) if name in SEE_ONE else f"{shape.channels}_e{shape.expanded}"
        return f"{name}/c{channels}_{size}_{shape.dtype}"
    if isinstance(shape, DecoderShape):
        return f"{name}/c{shape.channels}_{size}_{shape.dtype}"
    return f"{name}/c{shape.channels}_{size}_t{shape.tokens}_{shape.dtype}"


def file_name(gpu: str, triton: str) -> str:
    """Return e.g. ``nvidia-h100-80gb-hbm3_triton-3.6.0.json``."""
    return f"{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}_triton-{triton}.json"


def write(folder: Path, gpu: str, triton: str, batch: int, tiles: dict[str, dict[str, Any]]) -> Path:
    """Add ``tiles`` (``kernel/shape`` -> arguments, {} if the defaults are best) to the GPU's file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(gpu, triton)
    known: dict[str, Any] = json.loads(path.read_text())["tiles"] if path.is_file() else {}
    known |= {name: {"tiles": chosen, "batch": batch} for name, chosen in tiles.items()}
    record = {"gpu": gpu, "triton": triton, "tiles": known}
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


@functools.cache
def read(gpu: str, triton: str) -> dict[str, dict[str, Any]]:
    """Return ``kernel/shape`` -> ``{"tiles", "batch"}``; empty if there is no file for this GPU and Triton version."""
    folders = [Path(os.environ[VARIABLE])] if VARIABLE in os.environ else []
    for folder in (*folders, FOLDER):
        path = folder / file_name(gpu, triton)
        if not path.is_file():
            continue
        record = json.loads(path.read_text())
        if (record.get("gpu"), record.get("triton")) != (gpu, triton) or not isinstance(record.get("tiles"), dict):
            raise ValueError(
                f"{path} is not for {gpu} and Triton {triton}; tune again: python -m lsms_rt.bench.gpu.tune"
            )
        tiles: dict[str, dict[str, Any]] = record["tiles"]
        return tiles
    log.info("no tuned tile sizes for %s and Triton %s; using the defaults", gpu, triton)
    return {}


@functools.cache
def _planned(launch: Callable[..., Any], shape: Shape, device: tuple[str, str] | None) -> Any:
    name = key(launch, shape)
    chosen = {} if device is None else read(*device).get(name, {})
    tiles = chosen.get("tiles", {})
    try:
        return launch(shape, **tiles)
    except TypeError as error:
        if not tiles:
            raise
        # a launch may pass its keywords on, so only the call shows which of them there are
        raise ValueError(
            f"the tuned tiles of {name} are not for this version ({error}); tune again: "
            "python -m lsms_rt.bench.gpu.tune"
        ) from error


def _device() -> tuple[str, str] | None:
    """Return the name of the current GPU and Triton's version; None if the interpreter runs on the CPU.

    Every launch asks, so that the driver is asked once per GPU.
    """
    return _named(torch.cuda.current_device()) if _has_gpu() else None


@functools.cache
def _has_gpu() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _named(index: int) -> tuple[str, str]:
    import triton

    return torch.cuda.get_device_name(index), triton.__version__
