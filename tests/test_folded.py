"""The folded block equals the block's definition, and is the better one in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lsms_rt.kernels.sample import random_inputs, random_weights, weights_on
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
    torch.testing.assert_close(short, plain, rtol=1e-10, atol=1e-9)  # fp64 itself loses three digits to the offset


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
            if name.endswith((".scale1", ".scale2")):  # 1e-2 would hide what the branches do
                parameter.fill_(1.0)
    stock = LSMS(reference.config).double().eval()
    stock.load_state_dict(reference.state_dict())
    image, tokens = torch.rand(2, 1, 64, 96, dtype=torch.float64), torch.randint(0, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.float64)
    mask[1, 5:] = 0
    with torch.no_grad():
        torch.testing.assert_close(stock(image, tokens, mask), reference(image, tokens, mask), rtol=1e-9, atol=1e-9)
        features = reference.encode_text(tokens, mask)
        with pytest.raises(ValueError, match="features are plain, this model takes folded"):
            stock.segment(image, features)


# ------------------------------------------------------------------------------------- half precision

CASES = {  # offset of a in units of its deviation, factor of the keys
    "normal": (0.0, 1.0),
    "large mean": (30.0, 1.0),
    "flat attention": (0.0, 0.02),
    "sharp attention": (0.0, 8.0),
}
# Relative error of the language branch against fp64, storage and arithmetic fp16 (measured on CPU, beside each): the
# bound leaves a factor of about three for another seed.
FOLDED_BOUND = {"normal": 4e-3, "large mean": 4e-3, "flat attention": 4e-3, "sharp attention": 6e-3}


def half_errors(name: str) -> dict[str, float]:
    """Relative errors of gated context in fp16, conventional and folded, from the same fp16 ``a``."""
    mean, sharpness = CASES[name]
    w = random_weights(64, seed=3)
    _, keys, values, mask = random_inputs(1, 64, 32, 32, 24, [20])
    g = torch.Generator().manual_seed(5)
    a = torch.randn(1, 64, 32, 32, generator=g, dtype=torch.float64)
    a = (a + mean * torch.randn(64, 1, 1, generator=g, dtype=torch.float64)).half()
    keys = keys * sharpness

    def conventional(dtype: torch.dtype) -> Tensor:
        k, v, m, z = (t.to(dtype) for t in (keys, values, mask, a))
        query, output = ((f[0].to(dtype), f[1].to(dtype)) for f in (w.query, w.output))
        context = functional.text_attention(z, k, v, m, query, output)
        return functional.language_gate(context, w.hidden.to(dtype), w.gate.to(dtype))

    def short(dtype: torch.dtype) -> Tensor:
        k, v = folded.fold_sentence(keys, values, mask, w.output)  # once a sentence, in the text graph
        k, v, m, z = (t.to(dtype) for t in (k, v, mask, a))
        query, hidden, second = (t.to(dtype) for t in (w.query[0], w.hidden, w.gate))
        p = folded.text_weights(folded.centred(z), k, m, query)
        v, first = folded.fold_values(p, v, hidden)
        context = torch.matmul(v.transpose(1, 2), p.transpose(1, 2))
        layer = torch.matmul(first.transpose(1, 2), p.transpose(1, 2))
        return torch.tanh(torch.matmul(second.flatten(1), layer.relu())) * context

    truth = conventional(torch.float64).flatten(2)
    torch.testing.assert_close(short(torch.float64), truth, rtol=1e-10, atol=1e-10)
    norm = truth.norm()
    return {
        "conventional": float((conventional(torch.float16).flatten(2).double() - truth).norm() / norm),
        "folded": float((short(torch.float16).double() - truth).norm() / norm),
    }


@pytest.mark.parametrize("name", list(CASES))
def test_half_precision(name: str) -> None:
    errors = half_errors(name)
    print(f"{name}: {errors}")
    assert errors["folded"] < FOLDED_BOUND[name], errors
    if name in ("large mean", "flat attention"):
        assert errors["folded"] < errors["conventional"] / 3, errors
    else:
        assert errors["folded"] < errors["conventional"] * 1.5, errors
