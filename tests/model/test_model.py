"""The reference network: sizes, invariances, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lsms_rt.model import LSMS, PRESETS, LsmsConfig, TextConfig, preset
from lsms_rt.model.decoder import TOKENS, _fold, _unfold, sinusoids
from lsms_rt.model.encoder import Encoder, LanguageBranch

TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=2, heads=2, intermediate_size=64, max_tokens=12)


@pytest.fixture(scope="module")
def model() -> LSMS:
    torch.manual_seed(0)
    net = LSMS(preset("tiny", image_size=96, text=TEXT))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            # 1e-2 would hide what the branches do.
            if name.endswith((".scale1", ".scale2")):
                parameter.fill_(1.0)
        for name, buffer in net.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return net.eval()


def example(batch: int, height: int = 96, width: int = 96, tokens: int = 7) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 1, height, width, generator=g) * 2 - 1
    return image, torch.randint(0, 50, (batch, tokens), generator=g), torch.ones(batch, tokens)


def language_size(encoder: Encoder) -> int:
    """The number of parameters that SVLA adds to MSCAN."""
    branches = [module for module in encoder.modules() if isinstance(module, LanguageBranch)]
    return sum(parameter.numel() for branch in branches for parameter in branch.parameters())


@pytest.mark.parametrize(("name", "millions"), [("tiny", 3.90), ("small", 13.45), ("base", 26.28), ("large", 44.64)])
def test_encoder_has_the_published_mscan_size(name: str, millions: float) -> None:
    """SegNeXt's table 2, less its 1000-class head; its stem reads three channels."""
    with torch.device("meta"):
        encoder = Encoder(replace(PRESETS[name], in_channels=3))
    size = sum(p.numel() for p in encoder.parameters()) - language_size(encoder)
    assert round(size / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "millions"), [("tiny", 3.84), ("small", 9.02), ("base", 19.56), ("large", 35.19)])
def test_language_branches_have_the_expected_size(name: str, millions: float) -> None:
    """The ancestor's count, for BERT-base's 768 channels; its one unused C x C projection a block is not ours."""
    config = PRESETS[name]
    with torch.device("meta"):
        branches = language_size(Encoder(config))
    unused = sum(depth * c * c for depth, c in zip(config.depths, config.dims, strict=True))
    # Biases were counted differently.
    assert (branches + unused) / 1e6 == pytest.approx(millions, abs=0.03)


@torch.no_grad()
def test_padding_tokens_change_nothing(model: LSMS) -> None:
    image, tokens, mask = example(2)
    padded = torch.cat([tokens, torch.full((2, 5), 9)], 1)
    longer = torch.cat([mask, torch.zeros(2, 5)], 1)
    # Softmax over more, masked, terms: the same sums up to fp32 rounding.
    torch.testing.assert_close(model(image, padded, longer), model(image, tokens, mask), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_sentence_matters(model: LSMS) -> None:
    image, tokens, mask = example(1)
    assert (model(image, tokens, mask) - model(image, tokens.flip(1), mask)).abs().max() > 1e-3


@torch.no_grad()
def test_batch_order_changes_nothing(model: LSMS) -> None:
    image, tokens, mask = example(3)
    mask[1, 4:] = 0
    order = [2, 0, 1]
    together = model(image, tokens, mask)
    torch.testing.assert_close(model(image[order], tokens[order], mask[order]), together[order], rtol=1e-4, atol=1e-5)
    alone = torch.cat([model(image[i : i + 1], tokens[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(96, 160), (224, 96), (64, 64)])
def test_odd_multiples_of_32(model: LSMS, height: int, width: int) -> None:
    image, tokens, mask = example(1, height, width)
    logits = model(image, tokens, mask)
    assert logits.shape == (1, 1, height, width)
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_two_halves_equal_the_whole(model: LSMS) -> None:
    image, tokens, mask = example(2)
    text = model.encode_text(tokens, mask)
    assert [tuple(k.shape) for k in text.keys] == [
        (2, d, 7, c) for d, c in zip((3, 3, 5, 2), (32, 64, 160, 256), strict=True)
    ]
    torch.testing.assert_close(model.segment(image, text), model(image, tokens, mask), rtol=0, atol=0)


@torch.no_grad()
def test_maps_have_the_stated_sizes(model: LSMS) -> None:
    image, tokens, mask = example(1, 96, 160)
    maps = model.encoder(image, model.encode_text(tokens, mask))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 96 // s, 160 // s) for c, s in zip(model.config.dims, (4, 8, 16, 32), strict=True)
    ]


def test_every_parameter_learns(model: LSMS) -> None:
    """The ancestor's optimizer left out whole modules and its branch had an unused projection."""
    image, tokens, mask = example(2)
    net = LSMS(model.config)
    net.train()
    net(image, tokens, mask).square().mean().backward()
    # The two projections of the contrastive loss are not in the forward pass; the biases of Wq and Wo cancel in an
    # InstanceNorm, and the folded form leaves them out.
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    loss, canceled = ("pixel_projection", "text_projection"), ("language.query.bias", "language.output.bias")
    assert [n for n in still if not n.startswith(loss) and not n.endswith(canceled)] == []
    assert sum(n.endswith(canceled) for n in still) == 2 * sum(net.config.depths)


def test_checkpoint_round_trip(model: LSMS, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = LSMS.from_pretrained(tmp_path)
    assert again.config == model.config
    assert not again.training
    image, tokens, mask = example(1)
    with torch.no_grad():
        torch.testing.assert_close(again(image, tokens, mask), model(image, tokens, mask), rtol=0, atol=0)


def test_checkpoint_stored_in_half_loads_as_float32(model: LSMS, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, dtype=torch.float16)
    assert {p.dtype for p in LSMS.from_pretrained(tmp_path).parameters()} == {torch.float32}


def test_wrong_checkpoints_are_refused(model: LSMS, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        LSMS.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_width": 64}))
    with pytest.raises(ValueError, match="other shape"):
        LSMS.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"color": "red"}))
    with pytest.raises(ValueError, match="color"):
        LSMS.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change", [{"image_size": 100}, {"image_size": 32}, {"hu_window": (5.0, 5.0)}, {"decoder_width": 40}]
)
def test_impossible_configs_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(PRESETS["tiny"], **change)
    with pytest.raises(ValueError, match="no preset"):
        preset("huge")


def test_config_round_trip() -> None:
    for config in PRESETS.values():
        assert LsmsConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("fold", [8, 4, 2, 1])
def test_fold_and_unfold_are_inverse(fold: int) -> None:
    x = torch.arange(2 * 3 * 3 * 2 * fold * fold, dtype=torch.float32).reshape(2, 3, 3 * fold, 2 * fold)
    folded = _fold(x, fold)
    assert folded.shape == (2, 6, fold * fold, 3)
    torch.testing.assert_close(_unfold(folded, fold, 3, 2), x, rtol=0, atol=0)
    torch.testing.assert_close(folded[0, 0, :, 0], x[0, 0, :fold, :fold].flatten(), rtol=0, atol=0)


def test_85_tokens_a_cell_and_distinct_positions() -> None:
    assert sum(TOKENS) == 85
    positions = sinusoids(16, 16, 128)
    assert torch.cdist(positions, positions).fill_diagonal_(9).min() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {"vocab_size": 10**12}}, "vocab_size is 1000000000000; give a whole number from 1 to 1000000"),
        ({"text": {"vocab_size": 10**400}}, "vocab_size is a int"),
        ({"text": {"vocab_size": 10**6, "hidden_size": 8192}}, "the text encoder would have .* weights"),
        ({"text": {"layers": 10**9}}, "layers is 1000000000"),
        ({"text": {"hidden_size": "768"}}, "hidden_size is a str"),
        ({"text": {"words": 3}}, "text holds something other than the sizes"),
        ({"text": 3}, "text holds something other"),
        ({"dims": [8192] * 4, "depths": [256] * 4}, "the image encoder would have .* weights"),
        ({"dims": [32, 64, 160]}, "dims holds no four sizes"),
        ({"depths": 3}, "depths holds no four sizes"),
        ({"mlp_ratios": [8, 8, 4, 0]}, "mlp_ratios is 0"),
        ({"decoder_width": 32 * 10**9}, "decoder_width is 32000000000"),
        ({"image_size": 32 * 10**9}, "image_size is 32000000000"),
        ({"in_channels": True}, "in_channels is a bool"),
        ({"hu_window": [None, 3]}, "hu_window holds no two numbers"),
        ({"hu_window": [float("nan"), 3]}, "hu_window holds no two numbers"),
        ({"threshold": "x"}, "threshold is no number from 0 to 1"),
        ({"preset": "a\x1b[2J"}, "preset is no text of one line"),
    ],
)
def test_sizes_of_a_config_are_bounded_before_anything_is_allocated(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LsmsConfig.from_dict(changes)


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_presets_are_within_the_bounds(name: str) -> None:
    made = preset(name)
    assert LsmsConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
