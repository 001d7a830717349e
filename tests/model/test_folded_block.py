"""A block without BatchNorm, layer scales and lone additions equals the block by its definition."""

from __future__ import annotations

import pytest
import torch

from lsms_rt import kernels as room
from lsms_rt.kernels.block import TritonBlock
from lsms_rt.model import LSMS, TextConfig, folded_block, preset
from lsms_rt.model.encoder import Block

# A block of a hundred sums keeps twelve digits in fp64.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_tokens=12)


def spread(module: torch.nn.Module) -> None:
    """Give norms and layer scales values that are not those of a new model, which would hide errors."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=g, dtype=tensor.dtype) + 0.5)
            elif ("norm" in name and tensor.dim() == 1) or name.endswith(("scale1", "scale2")):
                tensor.copy_(torch.randn(tensor.shape, generator=g, dtype=tensor.dtype))


@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 2), (2, 13), (16, 16)])
def test_the_folded_block_is_the_block(height: int, width: int) -> None:
    torch.manual_seed(0)
    plain = Block(8, 3, 16, "reference").double().eval()
    spread(plain)
    x = torch.randn(2, 8, height, width, dtype=torch.float64)
    keys, values, mask = torch.randn(2, 5, 8).double(), torch.randn(2, 5, 8).double(), torch.ones(2, 5).double()
    with torch.no_grad():
        folded = folded_block.fold(plain.weights())
        found = folded_block.block(x, lambda v: plain.attention.svla(v, keys, values, mask), folded)
        torch.testing.assert_close(found, plain(x, keys, values, mask), **EXACT)


def test_weights_of_half_precision_are_folded_in_float32() -> None:
    """A scale of 1e-2 times a small weight has few digits left in float16."""
    block = Block(8, 2, 16, "reference").half().eval()
    folded = folded_block.fold(block.weights())
    for weight, bias in (folded.inner, folded.outer, folded.expand, folded.depthwise, folded.reduce):
        assert weight.dtype == bias.dtype == torch.float32
    assert folded.shortcut.dtype == torch.float32


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels may be chosen; on CPU tensors the operators run their plain twins."""
    monkeypatch.setattr(room, "missing", lambda: None)


def small(kernels: str) -> LSMS:
    torch.manual_seed(0)
    model = LSMS(preset("tiny", image_size=64, text=TEXT), kernels).eval()
    spread(model)
    return model


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("kernels", ["triton", "plugins"])
def test_every_triton_form_of_the_model_is_the_model(kernels: str) -> None:
    """With norms and scales that differ from a new model's, in fp64."""
    models = [small(form).double() for form in ("reference", kernels)]
    image, tokens = torch.rand(1, 1, 64, 64, dtype=torch.float64), torch.randint(0, 50, (1, 9))
    mask = torch.ones(1, 9, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = (model(image, tokens, mask) for model in models)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
    # The form is not PyTorch's step by step.
    forms = [module.form for module in models[1].modules() if isinstance(module, Block)]
    assert all((form is None) == (kernels == "plugins") for form in forms)


@pytest.mark.usefixtures("pretended_gpu")
def test_changed_weights_and_statistics_are_packed_again() -> None:
    torch.manual_seed(0)
    block, plain = Block(32, 2, 16, "triton").eval(), Block(32, 2, 16, "stock").eval()
    assert isinstance(block.form, TritonBlock)
    x, tokens = torch.randn(1, 32, 6, 6), torch.randn(1, 5, 32)
    with torch.no_grad():
        for change in (lambda: None, lambda: block.norm1.running_mean.add_(1.0), lambda: block.scale2.fill_(2.0),
                       lambda: block.mlp.depthwise.weight.mul_(3.0), lambda: train(block.norm2)):  # fmt: skip
            change()
            plain.load_state_dict(block.state_dict())
            arguments = x, tokens, tokens, torch.ones(1, 5)
            torch.testing.assert_close(block(*arguments), plain(*arguments), rtol=1e-4, atol=1e-4)
            packed = block.form.packs.current()["block"]
            block(*arguments)
            assert block.form.packs.current()["block"] is packed


def train(norm: torch.nn.BatchNorm2d) -> None:
    """A step of training, which changes the statistics without counting that in their versions."""
    before = norm.running_mean._version, norm.running_mean.clone()
    norm.train()(torch.randn(4, 32, 6, 6) + 3)
    norm.eval()
    assert norm.running_mean._version == before[0]
    assert not torch.equal(norm.running_mean, before[1])


@pytest.mark.usefixtures("pretended_gpu")
def test_a_model_in_training_is_refused() -> None:
    """BatchNorm would use the batch's statistics, which the folded weights do not know."""
    model, error = small("triton"), r"running statistics; call eval\(\)"
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        text = model.encode_text(torch.randint(0, 50, (1, 9)), torch.ones(1, 9))
        maps = model.encoder(image, text)
        for part, call in (
            (model, lambda: model.segment(image, text)),
            (model.encoder, lambda: model.encoder(image, text)),
            # Parts of it alone, and what is called without the whole.
            (model.encoder.stages[2].blocks[0].norm2, lambda: model.encoder(image, text)),
            (model.decoder, lambda: model.decoder(maps)),
        ):
            part.train()
            with pytest.raises(RuntimeError, match=error):
                call()
            model.eval()
            call()
