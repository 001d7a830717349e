"""The folded decoder is the decoder."""

from __future__ import annotations

import pytest
import torch

from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.decoder import FOLDS, FullScaleDecoder, _fold, _unfold
from lsms_rt.model.decoder_folded import ONES, FoldedDecoder, _cells, _root, _uncells, _with_ones

TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)


def model_of(name: str) -> LSMS:
    torch.manual_seed(3)
    model = LSMS(preset(name, image_size=64, text=TEXT)).eval()
    # Biases and norms are 0 and 1 at first, which hides what they do.
    for parameter in model.decoder.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    for module in model.decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.requires_grad_(False)


def maps_of(model: LSMS, batch: int, rows: int, columns: int, scale: float = 1.0) -> list[torch.Tensor]:
    return [
        torch.randn(batch, width, rows * fold, columns * fold, dtype=torch.float64) * scale
        for width, fold in zip(model.config.dims, FOLDS, strict=True)
    ]


@pytest.mark.parametrize(("name", "scale"), [("tiny", 1.0), ("small", 1.0), ("tiny", 30.0)])
def test_it_computes_the_same(name: str, scale: float) -> None:
    model = model_of(name)
    decoder = model.decoder.double()
    maps = maps_of(model, 3, 2, 3, scale)
    wanted = decoder(maps)
    found = FoldedDecoder(decoder).double()(maps)
    # The products are taken in float64 and kept in float32, like any weight: 6e-8 of each.
    assert (found - wanted).abs().max() < 2e-6 * wanted.abs().max()
    # It is not a comparison of constants.
    assert wanted.std() > 0.1


def test_every_parameter_of_the_decoder_counts() -> None:
    """A fold that forgot a weight would pass where that weight is 0; each is changed here."""
    model = model_of("tiny")
    decoder = model.decoder.double()
    maps = maps_of(model, 1, 1, 2)
    for name, parameter in decoder.named_parameters():
        if name.endswith("qkv.bias") or name.startswith("fuse"):
            # A third of the bias belongs to the keys, where it has no effect (step 4); fuse is copied unchanged.
            continue
        before, kept = decoder(maps), parameter.data.clone()
        parameter.data.add_(torch.randn_like(parameter))
        after, folded = decoder(maps), FoldedDecoder(decoder).double()(maps)
        parameter.data.copy_(kept)
        assert (after - before).abs().max() > 1e-4, name
        assert (folded - after).abs().max() < 1e-5 * after.abs().max(), name


def test_half_precision_is_as_good_as_the_decoder_in_half() -> None:
    model = model_of("tiny")
    maps = maps_of(model, 2, 2, 2)
    truth = model.decoder.double()(maps)
    half = [x.half() for x in maps]
    folded = FoldedDecoder(model.decoder).half()
    usual = model.decoder.half()(half)
    errors = [float((x.double() - truth).abs().max()) for x in (folded(half), usual)]
    # By chance one or the other is a little better.
    assert errors[0] < 1.5 * errors[1]


def test_root_keeps_lengths() -> None:
    tokens = _with_ones(torch.randn(96, 20, dtype=torch.float64), torch.randn(96, dtype=torch.float64))
    root = _root(tokens)
    assert root.shape == (20 + ONES, 20 + ONES)
    t = torch.randn(5, 20 + ONES, dtype=torch.float64)
    torch.testing.assert_close((t @ root.T).square().sum(1), (t @ tokens.T).square().mean(1))


@pytest.mark.parametrize("fold", FOLDS)
def test_cells_are_the_decoder_s(fold: int) -> None:
    x = torch.randn(2, 5, 2 * fold, 3 * fold)
    cells = _cells(x.permute(0, 2, 3, 1), fold)
    torch.testing.assert_close(cells.reshape(2, 6, fold * fold, 5), _fold(x, fold))
    torch.testing.assert_close(_uncells(cells, fold, 2, 3).permute(0, 3, 1, 2), _unfold(_fold(x, fold), fold, 2, 3))


def test_a_folded_model_is_not_saved(tmp_path) -> None:
    model = model_of("tiny")
    assert isinstance(model.decoder, FullScaleDecoder)
    # Twice is harmless.
    model.fold_decoder().fold_decoder()
    assert isinstance(model.decoder, FoldedDecoder)
    with pytest.raises(ValueError, match=r"save it before fold_decoder\(\)"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
