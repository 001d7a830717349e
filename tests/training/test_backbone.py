"""MSCAN weights under SegNeXt's names, in our encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lsms_rt.errors import InputError
from lsms_rt.model import TextConfig, preset
from lsms_rt.model.encoder import Encoder
from lsms_rt.training.backbone import FIRST, our_name, read_backbone, take_over

DIMS, DEPTHS, RATIOS = (32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4)
FILE = Path("mscan_t.pth")


def segnext(prefix: str = "") -> dict[str, Tensor]:
    """Random tensors with the names and shapes of SegNeXt's ``mscan_t.pth``, written down from its source."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (shape[0],)

    def norm(name: str, width: int) -> None:
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{kind}"] = (width,)

    for stage, (width, depth, ratio) in enumerate(zip(DIMS, DEPTHS, RATIOS, strict=True), 1):
        if stage == 1:
            conv("patch_embed1.proj.0", width // 2, 3, 3, 3)
            norm("patch_embed1.proj.1", width // 2)
            conv("patch_embed1.proj.3", width, width // 2, 3, 3)
            norm("patch_embed1.proj.4", width)
        else:
            conv(f"patch_embed{stage}.proj", width, DIMS[stage - 2], 3, 3)
            norm(f"patch_embed{stage}.norm", width)
        for number in range(depth):
            block = f"block{stage}.{number}"
            unit = f"{block}.attn.spatial_gating_unit"
            norm(f"{block}.norm1", width)
            norm(f"{block}.norm2", width)
            conv(f"{block}.attn.proj_1", width, width, 1, 1)
            conv(f"{block}.attn.proj_2", width, width, 1, 1)
            conv(f"{unit}.conv0", width, 1, 5, 5)
            for index, length in enumerate((7, 11, 21)):
                conv(f"{unit}.conv{index}_1", width, 1, 1, length)
                conv(f"{unit}.conv{index}_2", width, 1, length, 1)
            conv(f"{unit}.conv3", width, width, 1, 1)
            conv(f"{block}.mlp.fc1", width * ratio, width, 1, 1)
            conv(f"{block}.mlp.dwconv.dwconv", width * ratio, 1, 3, 3)
            conv(f"{block}.mlp.fc2", width, width * ratio, 1, 1)
            shapes[f"{block}.layer_scale_1"] = shapes[f"{block}.layer_scale_2"] = (width,)
        shapes[f"norm{stage}.weight"] = shapes[f"norm{stage}.bias"] = (width,)
    torch.manual_seed(1)
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(preset("tiny", text=TextConfig(hidden_size=16)))


def test_every_tensor_arrives(encoder: Encoder) -> None:
    tensors = segnext()
    extra = {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    language = {name: p.detach().clone() for name, p in encoder.named_parameters() if ".language." in name}
    assert language
    taken = take_over(encoder, tensors | extra, FILE)
    assert len(taken.used) == len(set(taken.used)) == len(tensors)
    assert taken.empty == []
    assert taken.unused == ["head.weight", "head.bias"]
    state = encoder.state_dict()
    for name, value in tensors.items():
        target = our_name(name)
        assert target is not None
        wanted = value.sum(1, keepdim=True) if target == FIRST else value.reshape(state[target].shape)
        assert torch.equal(state[target], wanted), name
    for name, value in language.items():
        assert torch.equal(state[name], value), name
    assert "head.weight" in "\n".join(taken.summary(FILE))


def test_strips_and_blocks_are_not_mixed_up() -> None:
    """A few names by hand: the table above and the mapping could share an error."""
    unit = "block3.4.attn.spatial_gating_unit"
    svla = "stages.2.blocks.4.attention.svla"
    for theirs, ours in (
        (f"{unit}.conv2_1.weight", f"{svla}.rows.2.weight"),
        (f"{unit}.conv0_2.bias", f"{svla}.columns.0.bias"),
        (f"{unit}.conv3.weight", f"{svla}.mix.weight"),
        ("block1.0.mlp.dwconv.weight", "stages.0.blocks.0.mlp.depthwise.weight"),
        ("backbone.patch_embed4.norm.running_var", "stages.3.embed.1.running_var"),
        ("decode_head.conv_seg.weight", None),
    ):
        assert our_name(theirs) == ours


@pytest.mark.parametrize("key", [None, "state_dict"])
def test_files_of_both_kinds_are_read(tmp_path: Path, key: str | None) -> None:
    from safetensors.torch import save_file

    tensors = {"backbone.norm1.weight": torch.ones(32)}
    torch.save({key: tensors, "meta": {"epoch": 3}} if key else tensors, tmp_path / "a.pth")
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert list(read_backbone(tmp_path / name)) == ["backbone.norm1.weight"]


def test_another_size_is_reported(encoder: Encoder) -> None:
    tensors = segnext("backbone.")
    tensors["backbone.norm4.weight"] = torch.ones(512)
    taken = take_over(encoder, tensors, FILE)
    assert taken.unused == ["backbone.norm4.weight"]
    assert taken.empty == ["stages.3.norm.weight"]


def test_files_that_do_not_fit_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of its 1 tensors fits"):
        take_over(encoder, {"layer1.0.conv1.weight": torch.ones(64, 64, 3, 3)}, FILE)
    with pytest.raises(InputError, match="no such file"):
        read_backbone(tmp_path / "none.pth")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="no tensors"):
        read_backbone(tmp_path / "numbers.pth")
    torch.save({"state_dict": Path("x")}, tmp_path / "object.pth")
    with pytest.raises(InputError, match="without executing"):
        read_backbone(tmp_path / "object.pth")
