"""Checks of kernels and their launches, for several test files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from lsms_rt.kernels import registry, tuned_tiles
from lsms_rt.kernels.shape import TOKEN_COUNTS, Shape, shapes_around, stage_shapes
from lsms_rt.kernels.verify import verify
from lsms_rt.model.config import PRESETS


def agree(module: ModuleType, shape: Shape, tensors: dict[str, Tensor]) -> None:
    """All outputs of a module's kernels are written, and within the tolerance of its twin's."""
    deviations = verify(module, shape, tensors)
    assert all(deviation.ok for deviation in deviations), deviations


def check_launches(module: ModuleType, shape: Shape, tiles: dict[str, Any]) -> None:
    """With these tiles, n and k divide the channels, and the grid covers the map."""
    for launch in registry.launches(module, shape, lambda launch, at: launch(at, **tiles)):
        c = launch.constants
        joins = module in (registry.fold_keys, registry.fold_values)
        targets, sources = c.get("N", shape.channels), c.get("K", shape.channels)
        assert targets % c.get("BLOCK_N", 1) == 0
        # A join fills its last step up to a power of two.
        assert sources % c.get("BLOCK_K", 1) == 0 or joins
        if "BLOCK_P" in c:
            assert launch.grid[0] * c["BLOCK_P"] >= shape.pixels
        # token_attention loops over the channels.
        if "BLOCK_N" in c and module is not registry.token_attention:
            # The grid of a join has no pixels.
            assert c["BLOCK_N"] * launch.grid[0 if joins else 1] == targets
        if "ROWS" in c and module is registry.depthwise3_gelu:
            assert launch.grid[0] * c["ROWS"] >= c["H"]
            assert launch.grid[1] * c["CHANNELS"] == c["E"]


def tuned(path: Path) -> list[tuple[ModuleType, Shape, dict[str, Any]]]:
    """Return kernel, shape and tiles of every entry of a file of tuned tiles for presets at 512x512."""
    kinds = itertools.product(PRESETS, ("fp16", "fp32"), TOKEN_COUNTS)
    shapes = [s for p, d, t in kinds for s in (*stage_shapes(p, 512, d, t), *shapes_around(p, 512, d))]
    named = {tuned_tiles.key(m.launch, s): (m, s) for s in dict.fromkeys(shapes) for m in registry.modules_at(s)}
    found = []
    for name, entry in json.loads(path.read_text())["tiles"].items():
        if name.startswith("chain/"):
            assert entry["tiles"].get("name", registry.CHAINS[0]) in registry.CHAINS
        else:
            found.append((*named[name], entry["tiles"]))
    return found
