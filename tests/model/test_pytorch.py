"""The path through PyTorch: kernels chosen, runner, Segmenter over a checkpoint.

What needs a GPU is in ``make gpu-check``.  Here the runner runs on the CPU, and the Triton path on PyTorch's meta
device, which computes shapes and devices but no numbers.
"""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lsms_rt
from lsms_rt import kernels as room
from lsms_rt.data import demo_checkpoint
from lsms_rt.errors import EngineInvalidError, InputError, MachineError
from lsms_rt.kernels import tuned_tiles
from lsms_rt.kernels.svla import TritonSvla
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.encoder import Svla
from lsms_rt.model.packs import packs_of
from lsms_rt.model.runner import GRAPHS, TorchRunner, _Captured, _rows, _static
from lsms_rt.pytorch import TorchBackend, open_checkpoint

TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_tokens=12)


def small(kernels: str = "stock") -> LSMS:
    torch.manual_seed(0)
    return LSMS(preset("tiny", image_size=64, text=TEXT), kernels).eval()


def shallow(kernels: str = "stock") -> LSMS:
    """One block a stage, which the compiler traces fast."""
    torch.manual_seed(0)
    text = replace(TEXT, max_tokens=64)
    return LSMS(replace(preset("tiny", image_size=64, text=text), depths=(1, 1, 1, 1)), kernels).eval()


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels may be chosen; on CPU tensors the operators run their plain twins."""
    monkeypatch.setattr(room, "missing", lambda: None)


# -------------------------------------------------------------------------------------------- the choice


def test_triton_without_a_gpu_is_an_error_that_says_so() -> None:
    with pytest.raises(MachineError, match=r"kernels='triton': PyTorch finds no NVIDIA GPU.*kernels='stock'"):
        small("triton")


def test_auto_logs_the_choice(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with caplog.at_level(logging.INFO, "lsms_rt"):
        assert small("auto").kernels == "stock"
    assert "uses stock operations: PyTorch finds no NVIDIA GPU" in caplog.text
    monkeypatch.setattr(room, "missing", lambda: None)
    with caplog.at_level(logging.INFO, "lsms_rt"):
        assert small("auto").kernels == "triton"
    assert "uses the Triton kernels" in caplog.text


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="kernels is 'cuda'; choose from stock, triton, plugins, auto"):
        small("cuda")


@pytest.mark.parametrize(
    ("capability", "installed", "said"),
    [
        ((7, 5), True, "compute capability 7.5"),
        ((8, 0), True, None),
        ((8, 0), False, "pip install 'lsms-rt\\[triton\\]'"),
    ],
)
def test_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: bool, said: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda _: object() if installed else None)
    found = room.missing()
    assert (found is None) if said is None else pytest.importorskip("re").search(said, found or "")


@pytest.mark.parametrize(
    ("capability", "triton", "said"),
    [
        ((10, 0), "3.6.0", "Triton 3.6 is known to compile wrongly for compute capability 10.0"),
        ((11, 0), "3.8.1", "triton>=3.9"),
        ((10, 3), "3.9.0", None),
        ((9, 0), "3.6.0", None),
    ],
)
def test_a_triton_that_compiles_wrongly_is_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], triton: str, said: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(room, "version", lambda _: triton)
    found = room.missing()
    assert (found is None) if said is None else (found is not None and said in found)


# -------------------------------------------------------------------------------------- the Triton path


@pytest.mark.usefixtures("pretended_gpu")
def test_the_triton_path_is_the_model() -> None:
    """The chain of operators in the whole model, as their plain twins on the CPU: equal to the definition."""
    reference, triton = small("reference").double(), small("triton").double()
    triton.load_state_dict(reference.state_dict())
    image, tokens = torch.rand(2, 1, 64, 96, dtype=torch.float64), torch.randint(0, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.float64)
    mask[1, 5:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(triton(image, tokens, mask), reference(image, tokens, mask), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("pretended_gpu")
def test_changed_weights_are_packed_again() -> None:
    model = small("triton")
    image, tokens, mask = torch.rand(1, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9)
    block = next(module for module in model.modules() if isinstance(module, Svla))
    with torch.no_grad():
        block.mix.bias.zero_()
        before = model(image, tokens, mask)
        first = block.form.packs.current()[16]  # type: ignore[attr-defined]
        model(image, tokens, mask)
        model(torch.rand(1, 1, 96, 64), tokens, mask)
        assert block.form.packs.current()[16] is first  # type: ignore[attr-defined]
        assert sorted(block.form.packs.current()) == [16, 24]  # type: ignore[attr-defined]
        for module in model.modules():
            if isinstance(module, Svla):
                module.mix.bias += 5.0
        stock = small()
        stock.load_state_dict(model.state_dict())
        after = model(image, tokens, mask)
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, stock.eval()(image, tokens, mask), rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("pretended_gpu")
def test_the_kernels_refuse_to_train() -> None:
    model = small("triton")
    with pytest.raises(RuntimeError, match="no gradients; use torch.inference_mode"):
        model(torch.rand(1, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9))


class OnOneDevice(TorchDispatchMode):
    """Fails on an operation whose result is anywhere but on the meta device, or that reads a value back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == "meta", f"{func} makes a tensor on the {tensor.device}"
        return result


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("kernels", ["stock", "triton"])
@pytest.mark.parametrize(("name", "size"), [("tiny", 224), ("base", 512)])
def test_the_image_half_could_be_captured(kernels: str, name: str, size: int) -> None:
    """No copy between devices and no value read: what a CUDA graph forbids.  At real sizes, which meta makes free."""
    with torch.device("meta"):
        model = LSMS(preset(name, image_size=size, text=TEXT), kernels).half().eval()
        image = torch.empty(2, 1, size, size, dtype=torch.float16)
        tokens, mask = torch.zeros(2, 32, dtype=torch.int64), torch.empty(2, 32, dtype=torch.float16)
    with torch.inference_mode():
        text = model.encode_text(tokens, mask)
        with OnOneDevice():
            logits = model.segment(image, text)
    assert (logits.shape, logits.dtype) == ((2, 1, size, size), torch.float16)


@pytest.mark.slow
@pytest.mark.usefixtures("pretended_gpu")
def test_the_compiler_traces_through_the_operators() -> None:
    """One graph, no break: what ``compile_mode`` relies on."""
    model = small("triton")
    image, tokens, mask = torch.rand(1, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9)
    with torch.inference_mode():
        text = model.encode_text(tokens, mask)
        wanted = model.segment(image, text)
        compiled = torch.compile(model.segment, backend="aot_eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(image, text), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("pretended_gpu")
def test_a_compiled_runner_takes_sentences_of_several_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU, the chain of kernels is looked up in a file, which the compiler cannot trace."""
    monkeypatch.setattr(tuned_tiles, "_device", lambda: ("A GPU without a file", "3.9.0"))
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, **how: compiler(f, backend="eager", **how))
    runner = TorchRunner(shallow(), graphs=False, compile_mode="default")
    plain = TorchRunner(shallow())
    triton = shallow("triton")
    triton.load_state_dict(runner.model.state_dict())
    runner.model, runner._segment = triton, triton.segment
    image = torch.rand(1, 1, 64, 64)
    for tokens in (5, 40):
        ids, mask = torch.randint(0, 50, (1, tokens)), torch.ones(1, tokens)
        found, wanted = (r.segment(image, r.encode_text(ids, mask)) for r in (runner, plain))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert runner._prepared == {(64, 64, 5), (64, 64, 40)}


# -------------------------------------------------------------------------------------------- the runner


def test_the_runner_answers_like_the_model() -> None:
    model = small()
    runner = TorchRunner(small())
    image, tokens, mask = torch.rand(3, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9)
    text = runner.encode_text(tokens, mask)
    with torch.inference_mode():
        wanted = model(image, tokens.expand(3, 9), mask.expand(3, 9))[:, 0]
    torch.testing.assert_close(runner.segment(image, text), wanted, rtol=1e-5, atol=1e-6)


def test_the_runner_refuses_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="CUDA graphs need a GPU, but the runner's device is cpu"):
        TorchRunner(small(), "cpu", graphs=True)
    monkeypatch.setattr(room, "missing", lambda: None)
    with pytest.raises(ValueError, match="kernels='stock'"):
        TorchRunner(small("triton"), "cpu")


def test_half_precision_on_the_cpu_is_close() -> None:
    """The folded model in fp16 end to end: what a GPU computes, in another order of sums."""
    full, half = TorchRunner(small()), TorchRunner(small(), dtype=torch.float16)
    image, tokens, mask = torch.rand(1, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9)
    answers = [r.segment(image, r.encode_text(tokens, mask)) for r in (full, half)]
    assert answers[1].dtype == torch.float32
    error = (answers[1] - answers[0]).abs().max() / answers[0].abs().max()
    assert error < 0.02, error


@pytest.mark.slow
def test_a_checkpoint_segments_without_an_engine(demo_engine: Any, abdomen: np.ndarray) -> None:
    """The bundled weights through PyTorch and through the bundled engine give one answer."""
    text = "the low-density lesion in the right lobe of the liver"
    with lsms_rt.Segmenter(demo_engine) as engine, open_checkpoint(device="cpu") as seg:
        assert (seg.manifest.backend, seg.manifest.kernels, seg.digest) == ("pytorch", "stock", "")
        a, b = engine.predict(abdomen, text), seg.predict(abdomen, text)
        np.testing.assert_allclose(a.probability, b.probability, atol=1e-4)
        np.testing.assert_array_equal(a.mask, b.mask)
        series = list(seg.predict_series([abdomen, abdomen, abdomen], text, batch=2))
        np.testing.assert_allclose(series[2].probability, b.probability, atol=1e-5)
        assert a.weights_note == b.weights_note


def test_no_checkpoint_is_an_input_error(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"not a checkpoint: it has no config\.json"):
        open_checkpoint(tmp_path)
    with pytest.raises(InputError, match="image_size is 100"):
        open_checkpoint(demo_checkpoint(), device="cpu", image_size=100)


def test_the_demo_weights_are_called_so_wherever_they_are(tmp_path: Path) -> None:
    shutil.copytree(demo_checkpoint(), tmp_path / "copy")
    with open_checkpoint(tmp_path / "copy", image_size=64) as seg:
        assert seg.manifest.weights_note == "demo weights trained on synthetic CT"


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    shutil.copytree(demo_checkpoint(), tmp_path / "copy")
    (tmp_path / "copy/config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        open_checkpoint(tmp_path / "copy")


def test_arguments_that_cannot_be_are_called_by_their_names() -> None:
    with pytest.raises(MachineError, match=r"device 'cuda': PyTorch finds no NVIDIA GPU"):
        open_checkpoint(device="cuda")
    with pytest.raises(ValueError, match="kernels is 'fast'; choose from"):
        open_checkpoint(kernels="fast")


def test_the_definition_answers_too_and_a_closed_one_does_not(abdomen: np.ndarray) -> None:
    text = "the low-density lesion in the right lobe of the liver"
    with open_checkpoint(kernels="reference", image_size=64) as seg, open_checkpoint(image_size=64) as stock:
        a, b = seg.predict(abdomen, text), stock.predict(abdomen, text)
        np.testing.assert_allclose(a.probability, b.probability, atol=1e-3)
    with pytest.raises(EngineInvalidError, match="has been closed"):
        seg.predict(abdomen, text)


class FakeGraph:
    """Stands in for a captured CUDA graph: replaying runs the same operations on the same tensors."""

    def __init__(self, runner: TorchRunner, image: torch.Tensor, text: Any) -> None:
        self.runner, self.image, self.text, self.logits = runner, image, text, torch.empty(len(image), 1, 64, 64)

    def replay(self) -> None:
        self.logits.copy_(self.runner.model.segment(self.image, self.text))


def test_graphs_follow_image_and_sentence_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bookkeeping around captured graphs, with graphs that run on the CPU."""
    runner, plain = TorchRunner(small()), TorchRunner(small())
    runner.graphs = True
    captures: list[int] = []

    def capture(images: torch.Tensor, text: Any) -> _Captured:
        captures.append(len(images))
        static = _static(_rows(text, len(images)))
        assert all(keys[:, i].is_contiguous() for keys in static.keys for i in range(keys.shape[1]))
        graph = FakeGraph(runner, images.clone(), static)
        return _Captured(graph, graph.image, static, graph.logits, [])

    monkeypatch.setattr(runner, "_capture", capture)
    tokens = [torch.randint(0, 50, (1, 9), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    texts = [runner.encode_text(t, torch.ones(1, 9)) for t in tokens]
    for batch, sentence in [(2, 0), (2, 1), (2, 0), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (2, 0)]:
        images = torch.rand(batch, 1, 64, 64)
        found = runner.segment(images, texts[sentence])
        torch.testing.assert_close(found, plain.segment(images, texts[sentence]), rtol=1e-5, atol=1e-6)
    # The limit is four: the oldest, 1, was dropped, because 2 had been used since.
    assert captures == [2, 1, 3, 4, 5]
    runner.segment(torch.rand(1, 1, 64, 64), texts[0])
    assert captures[-1] == 1
    assert len(runner._captured) == GRAPHS


def test_a_graph_is_destroyed_when_no_graph_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory would be given away while it is still written."""
    runner, waits = TorchRunner(small()), []
    runner.graphs, runner._done = True, SimpleNamespace(synchronize=lambda: waits.append(len(runner._captured)))

    def capture(images: torch.Tensor, text: Any) -> _Captured:
        graph = FakeGraph(runner, images.clone(), _static(_rows(text, len(images))))
        return _Captured(graph, graph.image, graph.text, graph.logits, [])

    monkeypatch.setattr(runner, "_capture", capture)
    text = runner.encode_text(torch.randint(0, 50, (1, 9)), torch.ones(1, 9))
    for batch in range(1, GRAPHS + 1):
        runner.segment(torch.rand(batch, 1, 64, 64), text)
    assert waits == []
    runner.segment(torch.rand(GRAPHS + 1, 1, 64, 64), text)
    assert waits == [GRAPHS]
    runner.close()
    assert waits == [GRAPHS, GRAPHS]


def test_an_answer_that_was_started_survives_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's tensor is overwritten; what was started before is not."""
    runner, plain = TorchRunner(small()), TorchRunner(small())
    runner.graphs = True

    def capture(images: torch.Tensor, text: Any) -> _Captured:
        graph = FakeGraph(runner, images.clone(), _static(_rows(text, len(images))))
        return _Captured(graph, graph.image, graph.text, graph.logits, [])

    monkeypatch.setattr(runner, "_capture", capture)
    text = runner.encode_text(torch.randint(0, 50, (1, 9)), torch.ones(1, 9))
    images = [torch.rand(1, 1, 64, 64) for _ in range(3)]
    answers = [wait() for wait in [runner.start(image, text) for image in images]]
    for answer, image in zip(answers, images, strict=True):
        assert (answer.dtype, answer.device.type) == (torch.float32, "cpu")
        torch.testing.assert_close(answer, plain.segment(image, text), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.decoder.predict.bias.add_(1.0),
        lambda model: setattr(model.decoder.predict, "bias", torch.nn.Parameter(torch.ones(1))),
        lambda model: setattr(model.decoder.predict.bias, "data", torch.ones(1)),
        lambda model: model.decoder.fuse[0].train()(torch.rand(1, model.config.decoder_width, 4, 4)),
    ],
    ids=["in place", "replaced", "moved", "trained"],
)
def test_changed_weights_are_an_error_once_a_graph_holds_copies(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[LSMS], Any]
) -> None:
    runner = TorchRunner(shallow())
    runner.graphs = True

    def capture(images: torch.Tensor, text: Any) -> _Captured:
        graph = FakeGraph(runner, images.clone(), _static(_rows(text, len(images))))
        return _Captured(graph, graph.image, graph.text, graph.logits, [])

    monkeypatch.setattr(runner, "_capture", capture)
    text = runner.encode_text(torch.randint(0, 50, (1, 9)), torch.ones(1, 9))
    image = torch.rand(1, 1, 64, 64)
    runner.segment(image, text)
    runner.segment(image, text)
    with torch.no_grad():
        change(runner.model)
    for call in (runner.segment, runner.start):
        with pytest.raises(EngineInvalidError, match="weights were changed.*create a new TorchRunner"):
            call(image, text)


@pytest.mark.usefixtures("pretended_gpu")
def test_a_graph_keeps_the_packed_weights_that_it_reads() -> None:
    """Packed again, the old ones would be freed, and the graph would read other tensors' memory."""
    model = shallow("triton")
    arguments = torch.rand(1, 1, 64, 64), torch.randint(0, 50, (1, 9)), torch.ones(1, 9)
    with torch.inference_mode():
        model(*arguments)
    kept = packs_of(model)
    # Four SVLAs, four blocks around them, and the decoder's sum of scales.
    assert [type(pack).__name__ for packs in kept for pack in packs.values()].count("PackedBlock") == 4
    assert len(kept) == 9
    memory = [weakref.ref(pack) for packs in kept for pack in packs.values() if not isinstance(pack, tuple)]
    with torch.inference_mode():
        for tensor in model.parameters():
            tensor.add_(0.01)
        model(*arguments)
    assert all(pack() is not None for pack in memory)
    del kept
    gc.collect()
    assert all(pack() is None for pack in memory)


def test_the_next_caller_waits_also_for_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, waited = TorchRunner(shallow()), []
    events = iter(("first", "second"))
    stream = SimpleNamespace(record_event=lambda: next(events), wait_event=waited.append)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    runner.device = torch.device("cuda", 0)
    with pytest.raises(RuntimeError, match="out of memory"), runner.turn():
        raise RuntimeError("out of memory")
    with runner.turn():
        assert waited == ["first"]
    assert runner._done == "second"


def test_a_series_is_answered_in_order_and_one_batch_is_started_ahead() -> None:
    model = small()
    backend, order = TorchBackend(TorchRunner(model)), []
    text = backend.encode_text(np.ones((1, 9), np.int64), np.ones((1, 9), np.float32))
    batches = [np.full((2, 1, 64, 64), value, np.float32) for value in (-1.0, 0.0, 1.0)]

    def prepared() -> Any:
        for number, batch in enumerate(batches):
            order.append(f"prepare {number}")
            yield batch

    for number, logits in enumerate(backend.segment_many(prepared(), text)):
        order.append(f"answer {number}")
        np.testing.assert_allclose(logits, backend.segment(batches[number], text), rtol=1e-5, atol=1e-6)
    assert order == ["prepare 0", "prepare 1", "answer 0", "prepare 2", "answer 1", "answer 2"]
    assert list(backend.segment_many([], text)) == []


def test_a_capture_measures_convolutions_and_leaves_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, seen = TorchRunner(small()), []

    def capture(images: torch.Tensor, text: Any) -> Any:
        seen.append(torch.backends.cudnn.benchmark)
        raise RuntimeError("no GPU")

    monkeypatch.setattr(runner, "_capture_alone", capture)
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
        with pytest.raises(RuntimeError, match="no GPU"):
            runner._capture(torch.rand(1, 1, 64, 64), None)  # type: ignore[arg-type]
        assert torch.backends.cudnn.benchmark is before
    assert seen == [True, True]


def test_forms_are_per_block() -> None:
    """A form keeps what it packed, so no two blocks may share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "missing", lambda: None)
        forms = [module.form for module in small("triton").modules() if isinstance(module, Svla)]
    assert all(isinstance(form, TritonSvla) for form in forms)
    assert len({id(form) for form in forms}) == len(forms) == 13
