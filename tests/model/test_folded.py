"""The folded block equals the block's definition, and is the better one in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lsms_rt.bench.half_precision import CASES, half_errors
from lsms_rt.kernels.test_data import random_inputs, random_weights, weights_on
from lsms_rt.model import LSMS, TextConfig, folded, functional, preset
from lsms_rt.model.functional import SvlaWeights

# The identities are exact in real arithmetic; in fp64 a block of a hundred sums keeps twelve digits.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
# An InstanceNorm of a constant divides rounding errors by sqrt(1e-5): 300 times larger.
CONSTANT = {"rtol": 1e-12, "atol": 1e-11}


def both(x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, w: SvlaWeights) -> tuple[Tensor, Tensor]:
    plain = functional.svla(x, keys, values, mask, w)
    return plain, folded.svla(x, *folded.fold_sentence(keys, values, mask, w.output), mask, w)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (15, 15), (3, 2), (1, 5), (23, 37), (32, 32), (45, 30)])
@pytest.mark.parametrize("tokens", [2, 9, 32])
def test_the_folded_block_is_the_block(height: int, width: int, tokens: int) -> None:
    """Maps smaller and larger than the filters, so that every border case is met."""
    w = random_weights(8)
    plain, short = both(*random_inputs(2, 8, height, width, tokens), w)
    torch.testing.assert_close(short, plain, **EXACT)


@pytest.mark.parametrize("valid", [[1, 1], [0, 0], [0, 5], [1, 6]])
def test_one_word_no_word(valid: list[int]) -> None:
    """One token: every pixel gets the same, and the norm takes it out.  No token: there is nothing to get."""
    w = random_weights(8)
    x, keys, values, mask = random_inputs(2, 8, 9, 13, 6, valid)
    plain, short = both(x, keys, values, mask, w)
    torch.testing.assert_close(short, plain, **CONSTANT)
    _, s = functional.multi_scale_depthwise(x, w.center, w.strips)
    silent = [i for i, n in enumerate(valid) if n < 2]
    deaf = torch.nn.functional.conv2d(s, *w.mix) * x
    torch.testing.assert_close(short[silent], deaf[silent], **CONSTANT)


def test_a_long_way_from_zero() -> None:
    """An offset of ``a`` changes nothing but what the strips see of it."""
    w = random_weights(8)
    w.center[1].add_(1000.0)
    plain, short = both(*random_inputs(1, 8, 20, 20, 9), w)
    # fp64 itself loses three digits to the offset.
    torch.testing.assert_close(short, plain, rtol=1e-10, atol=1e-9)


def test_autocast_leaves_the_variance_alone() -> None:
    """Training on a GPU became NaN: autocast computed sums in bfloat16 that cancel, and a variance was negative."""
    torch.manual_seed(0)
    # In float32, and what the tokens share is fifty times their difference.
    p = (4 * torch.randn(2, 300, 9)).softmax(2)
    p = p - p.mean(1, keepdim=True)
    values, hidden = 10 + 0.2 * torch.randn(2, 9, 16), torch.randn(16, 16, 1, 1)
    expected, _ = folded.fold_values(p.double(), values.double(), hidden.double())
    with torch.autocast("cpu", torch.bfloat16):
        normal, _ = folded.fold_values(p, values, hidden)
    # The sum over 300 pixels in float32 keeps five digits, of which the cancellation takes three.
    torch.testing.assert_close(normal.double(), expected, rtol=1e-2, atol=0)


def test_what_all_tokens_share_costs_nothing() -> None:
    """Values that differ by a thousandth of what they share: without step 6, fp32 would lose three more digits."""
    w = random_weights(8)
    x, keys, values, mask = random_inputs(1, 8, 20, 20, 9)
    values = (values * 1e-2 + 10.0 * torch.randn(8, dtype=torch.float64)) * mask[..., None]
    wanted = functional.svla(x, keys, values, mask, w)

    small = weights_on(w, "cpu", torch.float32)
    shared, m = folded.fold_sentence(keys, values, mask, w.output), mask.float()
    found = folded.svla(x.float(), shared[0].float(), shared[1].float(), m, small)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert shared[1].abs().max() < 0.1


def test_composing_the_5x5_into_the_strips_is_wrong_at_the_borders() -> None:
    """Why ``a`` is computed first: a recorded trap, so that nobody folds it later."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 40, 40, dtype=torch.float64)
    center, row = torch.randn(1, 1, 5, 5).double(), torch.randn(1, 1, 1, 21).double()
    conv = torch.nn.functional.conv2d
    right = conv(conv(x, center, padding=2), row, padding=(0, 10))
    composed = conv(row, center.flip(2, 3).transpose(0, 1), padding=(4, 4))  # 5 x 25
    wrong = conv(x, composed, padding=(2, 12))
    torch.testing.assert_close(wrong[..., 12:-12], right[..., 12:-12], **EXACT)
    assert (wrong - right).abs().max() > 0.1 * right.abs().max()


def test_the_whole_model_is_the_same() -> None:
    torch.manual_seed(0)
    text = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_tokens=12)
    reference = LSMS(preset("tiny", image_size=64, text=text), kernels="reference").double().eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            # 1e-2 would hide what the branches do.
            if name.endswith((".scale1", ".scale2")):
                parameter.fill_(1.0)
    stock = LSMS(reference.config).double().eval()
    stock.load_state_dict(reference.state_dict())
    image, tokens = torch.rand(2, 1, 64, 96, dtype=torch.float64), torch.randint(0, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.float64)
    mask[1, 5:] = 0
    with torch.no_grad():
        torch.testing.assert_close(stock(image, tokens, mask), reference(image, tokens, mask), rtol=1e-9, atol=1e-9)
        features = reference.encode_text(tokens, mask)
        with pytest.raises(ValueError, match="features are plain, but this model needs folded"):
            stock.segment(image, features)


# ------------------------------------------------------------------------------------- half precision

# The bound leaves a factor of about three to the measured errors, bench/results/cpu/half_precision.json, for other
# seeds and other orders of sums.
FOLDED_BOUND = {"normal": 4e-3, "large mean": 4e-3, "flat attention": 4e-3, "sharp attention": 6e-3}


@pytest.mark.parametrize("name", list(CASES))
def test_half_precision(name: str) -> None:
    """And the committed figures are those of this code, but for the order in which another CPU adds."""
    errors = half_errors(name)
    committed = json.loads((Path(__file__).parents[2] / "bench/results/cpu/half_precision.json").read_text())["rows"]
    assert errors == pytest.approx(committed[name], rel=0.3)
    assert errors["folded"] < FOLDED_BOUND[name], errors
    if name in ("large mean", "flat attention"):
        assert errors["folded"] < errors["conventional"] / 3, errors
    else:
        assert errors["folded"] < errors["conventional"] * 1.5, errors
