"""MSCAN weights as SegNeXt publishes them -> our image encoder.

SegNeXt (arXiv 2209.08575): ``mscan_t.pth`` and its like, which were pretrained on ImageNet, or the checkpoints of whole
segmentation networks, whose names begin with ``backbone.``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lsms_rt.errors import InputError
from lsms_rt.model.encoder import Encoder

FIRST = "stages.0.embed.0.weight"
# SegNeXt's name -> ours, of what is inside a block.  "mlp.dwconv" alone is the name in later versions.
BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj_1": "attention.inner",
    "attn.proj_2": "attention.outer",
    "attn.spatial_gating_unit.conv0": "attention.svla.center",
    "attn.spatial_gating_unit.conv0_1": "attention.svla.rows.0",
    "attn.spatial_gating_unit.conv0_2": "attention.svla.columns.0",
    "attn.spatial_gating_unit.conv1_1": "attention.svla.rows.1",
    "attn.spatial_gating_unit.conv1_2": "attention.svla.columns.1",
    "attn.spatial_gating_unit.conv2_1": "attention.svla.rows.2",
    "attn.spatial_gating_unit.conv2_2": "attention.svla.columns.2",
    "attn.spatial_gating_unit.conv3": "attention.svla.mix",
    "mlp.fc1": "mlp.expand",
    "mlp.dwconv.dwconv": "mlp.depthwise",
    "mlp.dwconv": "mlp.depthwise",
    "mlp.fc2": "mlp.reduce",
}
SCALES = {"layer_scale_1": "scale1", "layer_scale_2": "scale2"}
EMBED = {"proj": "0", "norm": "1"}


@dataclass(frozen=True)
class Taken:
    """What was taken over.

    Attributes:
        used: names of our encoder's tensors that were filled.
        unused: names in the file that fit nothing.
        empty: names of our encoder's tensors that keep their random values, the language branches left out.
    """

    used: list[str]
    unused: list[str]
    empty: list[str]

    def summary(self, file: Path) -> list[str]:
        """What a user should read, one line each."""
        lines = [f"--backbone {file.name}: {len(self.used)} tensors of the encoder taken over"]
        if self.empty:
            lines.append(f"  {len(self.empty)} keep random values: {_some(self.empty)}")
        if self.unused:
            lines.append(f"  {len(self.unused)} of the file not used: {_some(self.unused)}")
        return lines


def read_backbone(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pth`` or ``.safetensors`` file; nothing in it is executed.

    Raises:
        InputError: the file is missing, damaged, or holds other things than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise InputError(f"--backbone {file}: no such file")
    try:
        found = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, weights_only=True, map_location="cpu")
        )
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise InputError(
            f"--backbone {file}: cannot be read without executing what is in it, or is damaged "
            f"({type(error).__name__}); save its state_dict as safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {str(n): t for n, t in found.items() if isinstance(t, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise InputError(f"--backbone {file}: no tensors in it; give MSCAN weights as SegNeXt publishes them")
    return tensors


@torch.no_grad()
def take_over(encoder: Encoder, tensors: Mapping[str, Tensor], file: Path) -> Taken:
    """Copy what fits by name and shape into ``encoder``; a first convolution of three channels is summed to one.

    Raises:
        InputError: nothing fits.
    """
    state = encoder.state_dict()
    used, unused = [], []
    for name, value in tensors.items():
        target = our_name(name)
        if target is None:
            unused.append(name)
            continue
        if target.endswith(tuple(SCALES.values())):
            value = value.reshape(-1, 1, 1)
        if target == FIRST and value.ndim == 4 and value.shape[1] == 3 and state[FIRST].shape[1] == 1:
            # A gray picture has the same value in all three channels.
            value = value.sum(1, keepdim=True)
        if target in state and state[target].shape == value.shape:
            state[target].copy_(value)
            used.append(target)
        else:
            unused.append(name)
    if not any(name.endswith("weight") for name in used):
        raise InputError(
            f"--backbone {file}: none of its {len(tensors)} tensors fits the encoder ({_some(list(tensors))}); give "
            "MSCAN weights as SegNeXt publishes them, of the same size as --preset"
        )
    # What SVLA adds to MSCAN.
    language = {name for name, _ in encoder.named_parameters() if ".language." in name}
    empty = [n for n in state if n not in used and n not in language and not n.endswith("num_batches_tracked")]
    return Taken(used, unused, empty)


def our_name(name: str) -> str | None:
    """SegNeXt's name of a tensor -> ours; None if it has none."""
    name = name.removeprefix("module.").removeprefix("backbone.")
    if found := re.fullmatch(r"patch_embed1\.proj\.(\d\..+)", name):
        return f"stages.0.embed.{found[1]}"
    if found := re.fullmatch(r"patch_embed([2-4])\.(proj|norm)\.(.+)", name):
        return f"stages.{int(found[1]) - 1}.embed.{EMBED[found[2]]}.{found[3]}"
    if found := re.fullmatch(r"norm([1-4])\.(.+)", name):
        return f"stages.{int(found[1]) - 1}.norm.{found[2]}"
    if found := re.fullmatch(r"block([1-4])\.(\d+)\.(.+)", name):
        inside, _, kind = found[3].rpartition(".")
        ours = SCALES.get(found[3]) or (f"{BLOCK[inside]}.{kind}" if inside in BLOCK else None)
        return None if ours is None else f"stages.{int(found[1]) - 1}.blocks.{found[2]}.{ours}"
    return None


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")
