"""Sub-pixel prediction and the presence head: options of the config that older checkpoints do not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.presence import PresenceHead

TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)


def model(**options: object) -> LSMS:
    torch.manual_seed(0)
    made = LSMS(preset("tiny", image_size=64, text=TEXT, **options)).eval()
    if made.presence is not None:
        # A trained head: its last layer is not zero.
        torch.nn.init.normal_(made.presence.output.weight)
    return made


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 1, 64, 96) * 2 - 1, torch.randint(0, 50, (2, 7)), torch.ones(2, 7)


@torch.no_grad()
@pytest.mark.parametrize("subpixel", [1, 2, 4])
@pytest.mark.parametrize("presence", [False, True])
def test_the_folded_decoder_gives_the_same_logits(subpixel: int, presence: bool) -> None:
    network = model(subpixel=subpixel, presence=presence)
    before = network(*inputs())
    after = network.fold_decoder()(*inputs())
    assert before.shape == (2, 1, 64, 96)
    # As for the folded decoder alone: products taken in float64, then stored as float32.
    assert torch.allclose(before, after, atol=1e-4)


@torch.no_grad()
def test_no_logit_exceeds_the_presence_logit() -> None:
    network = model(presence=True)
    free = network(*inputs())
    assert network.presence is not None
    network.presence.output.weight.zero_()
    network.presence.output.bias.fill_(-2.0)
    capped = network(*inputs())
    assert capped.max() == -2.0
    assert torch.equal(capped, torch.minimum(capped, torch.tensor(-2.0)))
    assert free.max() > -2.0


@torch.no_grad()
def test_an_untrained_presence_head_empties_no_mask() -> None:
    head = PresenceHead(16).eval()
    answer = head(torch.randn(3, 16, 5, 7), torch.randn(3, 1, 10, 14))
    assert answer.shape == (3, 1, 1, 1)
    assert bool((answer == 3.0).all())


@torch.no_grad()
def test_presence_sees_single_pixels_of_a_subpixel_mask() -> None:
    """One bright sub-pixel must weigh as much as a bright cell: small lesions are that small."""
    torch.manual_seed(2)
    head = PresenceHead(16).eval()
    torch.nn.init.normal_(head.output.weight)
    features = torch.randn(1, 16, 4, 4)
    cell = torch.full((1, 1, 4, 4), -6.0)
    cell[0, 0, 1, 2] = 5.0
    fine = torch.full((1, 1, 8, 8), -6.0)
    fine[0, 0, 3, 4] = 5.0
    assert torch.allclose(head(features, cell), head(features, fine))


def test_a_config_without_the_options_loads_as_before(tmp_path: Path) -> None:
    network = model()
    network.save_pretrained(tmp_path)
    loaded = LSMS.from_pretrained(tmp_path)
    assert loaded.presence is None
    assert loaded.config.subpixel == 1
    assert not any(name.startswith("presence") for name in loaded.state_dict())


def test_options_survive_a_checkpoint(tmp_path: Path) -> None:
    network = model(subpixel=2, presence=True)
    network.save_pretrained(tmp_path)
    loaded = LSMS.from_pretrained(tmp_path)
    assert (loaded.config.subpixel, loaded.config.presence) == (2, True)
    with torch.no_grad():
        assert torch.equal(network(*inputs()), loaded(*inputs()))


def test_a_wrong_subpixel_is_refused() -> None:
    with pytest.raises(ValueError, match="subpixel is 3"):
        preset("tiny", subpixel=3)
