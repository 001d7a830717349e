"""Engine directories of plans that only ``fake_tensorrt`` can read, and what they compute."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.engine import open_directory
from lsms_rt.engine.backend import FEATURES
from lsms_rt.engine.manifest import sha256, write_manifest
from lsms_rt.engine.tensorrt.variant import RTX, TENSORRT, TensorRtVariant
from lsms_rt.machine.gpu import Driver, Gpu

T, C, SIZE, DEPTH = 32, 8, 64, 2
ORIN = Gpu("Orin", (8, 7), 32 << 30, True)
A10 = Gpu("NVIDIA A10", (8, 6), 24 << 30, False)
CUDA13 = Driver((13, 0), (A10,))


def plan_bytes(variant: TensorRtVariant, version: tuple[int, ...], body: bytes, mask: int = 0b100) -> bytes:
    """A plan's header as the libraries write it, and something behind."""
    size = 64 + len(body)
    return struct.pack("<4sIQQ4B4sQ24x", variant.tag, 0, 2, size, *version, variant.tag, mask) + body


def text_compute(tokens: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    value = (tokens * mask).sum(1)[:, None, None, None]
    return {name: np.broadcast_to(value + i, (len(tokens), DEPTH, T, C)) for i, name in enumerate(FEATURES)}


def image_compute(image: np.ndarray, mask: np.ndarray, **features: np.ndarray) -> dict[str, np.ndarray]:
    words = sum(array.astype(np.float64).mean((1, 2, 3)) for array in features.values()) + mask.sum(1)
    return {"logits": image + words[:, None, None, None]}


ROWS = (-1, DEPTH, T, C)
TEXT_TENSORS = [("tokens", (-1, T), "INT64", True), ("mask", (-1, T), "FLOAT", True)]
TEXT_TENSORS += [(name, ROWS, "HALF", False) for name in FEATURES]
IMAGE_TENSORS = [("image", (-1, 1, SIZE, SIZE), "FLOAT", True), ("mask", (-1, T), "FLOAT", True)]
IMAGE_TENSORS += [(name, ROWS, "HALF", True) for name in FEATURES]
IMAGE_TENSORS += [("logits", (-1, 1, SIZE, SIZE), "FLOAT", False)]


def engine_directory(folder: Path, demo: Path, variant: TensorRtVariant, **changes: Any) -> tuple[Any, dict[bytes, Any]]:
    """An engine directory of two plans that only ``FakeLibrary`` can read, and what they compute."""
    version = (10, 3, 0, 26) if variant is TENSORRT else (1, 7, 1, 116)
    plans = {n: plan_bytes(variant, version, n.encode()) for n in ("text.plan", "image.plan")}
    folder.mkdir(exist_ok=True)
    files = plans | {"tokenizer.json": (demo / "tokenizer.json").read_bytes()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = replace(
        open_directory(demo).manifest, backend=variant.name, backend_version=".".join(map(str, version)),
        image_size=SIZE, max_batch=4, files={name: sha256(data) for name, data in files.items()},
        compute_capability="8.6", device_name=A10.name,
        target_capabilities=("sm_86",) if variant is RTX else (), **changes,
    )  # fmt: skip
    write_manifest(folder, manifest)
    known = {plans["text.plan"]: (TEXT_TENSORS, text_compute), plans["image.plan"]: (IMAGE_TENSORS, image_compute)}
    return open_directory(folder), known
