"""Checkpoint -> engine: the graphs say what PyTorch says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from shallow import save_shallow

from lsms_rt.data import demo_checkpoint, demo_engine
from lsms_rt.engine import open_directory
from lsms_rt.engine.backend import FEATURES
from lsms_rt.errors import EngineError, InputError
from lsms_rt.export.build import build_engine
from lsms_rt.export.graph.passes import store_as_fp16
from lsms_rt.export.options import BuildOptions
from lsms_rt.export.references import of_engine, of_model
from lsms_rt.export.verify import bundled_examples, compare, judge, phantom_examples
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.sentences import TABLE, default_contract, open_reader
from lsms_rt.tokenizer import Tokenizer

pytestmark = pytest.mark.xdist_group("exports")


@pytest.mark.slow
def test_the_manifest_of_a_build(small_engine: Path) -> None:
    manifest = open_directory(small_engine).manifest
    assert (manifest.image_size, manifest.max_batch, manifest.profile) == (128, 4, (1, 4, 4))
    assert manifest.weights_note == "demo weights trained on synthetic CT"
    assert manifest.accuracy["slices"] == 2
    assert manifest.accuracy["max_logit_difference"] < 3e-4
    assert not list(small_engine.parent.glob(".building-*"))
    # The checkpoint has no table of words of its own.
    assert TABLE in manifest.files
    assert open_reader(open_directory(small_engine)).contract == default_contract()


@pytest.mark.slow
def test_inputs_outputs_and_opset_of_the_graphs(small_engine: Path) -> None:
    text, image = (onnx.load(small_engine / f"{name}.onnx") for name in ("text", "image"))
    for graph in (text, image):
        onnx.checker.check_model(graph, full_check=True)
        assert [o.version for o in graph.opset_import if o.domain == ""] == [20]
    assert [i.name for i in text.graph.input] == ["tokens", "mask"]
    assert [o.name for o in text.graph.output] == list(FEATURES)
    assert [i.name for i in image.graph.input] == ["image", "mask", *FEATURES]
    for value in (*text.graph.input, *text.graph.output, *image.graph.input, *image.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        assert first.dim_param and not first.dim_value, f"{value.name}: the batch is not dynamic"
    # All that depends on the sentence alone is in the text graph: no token projection is left in the image graph.
    assert not [i.name for i in image.graph.initializer if "language.text" in i.name or "bert" in i.name]


@pytest.mark.slow
def test_the_bundled_engine_equals_pytorch(demo_engine: Path) -> None:
    """Engine and checkpoint belong together.  The manifest records the same comparison on 64 slices."""
    assert open_directory(demo_engine).manifest.accuracy["slices"] == 64
    parity = compare(of_model(LSMS.from_pretrained(demo_checkpoint())), demo_engine, phantom_examples(8, 256))
    assert parity.slices == 8
    assert parity.max_logit_difference < 3e-4
    assert parity.mask_agreement >= 0.9999


@pytest.mark.slow
def test_an_engine_reads_64_tokens_as_pytorch_does(tmp_path: Path, abdomen: np.ndarray) -> None:
    model = save_shallow(tmp_path / "mine")
    build_engine(BuildOptions(checkpoint=tmp_path / "mine", verify_slices=0), tmp_path / "mine.engine")
    directory = open_directory(tmp_path / "mine.engine")
    tokenizer = Tokenizer(directory.read("tokenizer.json"), directory.manifest.max_tokens)
    sentences = ["dark " * (count - 2) for count in (64, 47, 33, 3)]
    assert [int(tokenizer(sentence).mask.sum()) for sentence in sentences] == [64, 47, 33, 3]
    parity = compare(of_model(model), directory, [(abdomen, sentence) for sentence in sentences])
    assert parity.slices == 4
    assert parity.max_logit_difference < 3e-4
    with pytest.raises(InputError, match="has 65 tokens and this engine reads at most 64; shorten it"):
        tokenizer("dark " * 63)


@pytest.mark.slow
def test_the_graphs_hold_no_local_paths(small_engine: Path) -> None:
    for name in ("text.onnx", "image.onnx"):
        data = (small_engine / name).read_bytes()
        assert b"stack_trace" not in data
        assert str(Path(__file__).parents[2]).encode() not in data


def test_fp16_storage_is_lossless() -> None:
    exact = np.arange(200, dtype=np.float32) / 8
    inexact = np.linspace(0, 1, 200, dtype=np.float32)
    large = np.full(200, 1e6, np.float32)
    names = {"exact": exact, "inexact": inexact, "large": large}
    nodes = [helper.make_node("Add", ["x", "exact"], ["a"]), helper.make_node("Add", ["a", "inexact"], ["b"])]
    nodes.append(helper.make_node("Add", ["b", "large"], ["y"]))
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [200]) for n in "xy"]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in names.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    before = model.SerializeToString()
    assert store_as_fp16(model) == 1
    onnx.checker.check_model(model, full_check=True)
    import onnxruntime

    x = {"x": np.random.default_rng(0).normal(size=200).astype(np.float32)}
    answers = [onnxruntime.InferenceSession(m).run(None, x)[0] for m in (before, model.SerializeToString())]
    np.testing.assert_array_equal(*answers)


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        build_engine(BuildOptions(checkpoint=tmp_path), tmp_path / "new.engine")
    (tmp_path / "precious").mkdir()
    with pytest.raises(InputError, match="exists"):
        build_engine(BuildOptions(), tmp_path / "precious")
    with pytest.raises(InputError, match="is not an engine"):
        build_engine(BuildOptions(force=True), tmp_path / "precious")
    engine = Path(shutil.copytree(demo_engine(), tmp_path / "mine.engine"))
    (engine / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds 1 files that are not the engine's"):
        build_engine(BuildOptions(force=True), engine)
    assert (engine / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="multiple of 32"):
        build_engine(BuildOptions(image_size=100), tmp_path / "new.engine")
    with pytest.raises(InputError, match="--max-batch 0"):
        build_engine(BuildOptions(max_batch=0), tmp_path / "new.engine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.engine", "precious"]


def test_a_checkpoint_without_a_tokenizer_or_config_value_is_refused(tmp_path: Path) -> None:
    text = TextConfig(vocab_size=20, hidden_size=32, layers=1, heads=1, intermediate_size=32)
    LSMS(preset("tiny", image_size=64, text=text)).save_pretrained(tmp_path / "mine")
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        build_engine(BuildOptions(checkpoint=tmp_path / "mine"), tmp_path / "mine.engine")
    config = json.loads((tmp_path / "mine/config.json").read_text())
    (tmp_path / "mine/config.json").write_text(json.dumps(config | {"image_size": 70}))
    with pytest.raises(InputError, match="image_size is 70"):
        build_engine(BuildOptions(checkpoint=tmp_path / "mine"), tmp_path / "mine.engine")


@pytest.mark.slow
def test_compare_notices_other_weights(small_engine: Path) -> None:
    """A check of the check: against a model with one changed weight, parity fails."""
    model = LSMS.from_pretrained(demo_checkpoint())
    with torch.no_grad():
        model.decoder.predict.bias += 0.01
    parity = compare(of_model(model), small_engine, phantom_examples(1, 128))
    assert parity.max_logit_difference > 5e-3
    with pytest.raises(EngineError, match=r"differs from its reference: logits by 1\.0e-02 \(at most 3e-04\)"):
        judge(parity, "fp32")
    with pytest.raises(EngineError, match="logits by nan"):
        judge(replace(parity, max_logit_difference=float("nan")), "fp16")


@pytest.mark.slow
def test_slices_are_compared_on_one_pytorch_thread_each(demo_engine: Path) -> None:
    """Threads that share a slice wait for each other on a busy machine; the caller's setting comes back."""
    model = LSMS.from_pretrained(demo_checkpoint())
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        compare(of_model(model), demo_engine, phantom_examples(2, 64))
        assert (seen, torch.get_num_threads()) == ([1, 1], before + 1)
        seen.clear()
        with of_model(model).tuned(256, 32):
            assert torch.get_num_threads() in (1, before + 1)
        assert (seen, torch.get_num_threads()) == ([before + 1] * 2 + [1] * 2, before + 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_two_engines_of_the_same_weights_agree_on_the_bundled_slices(demo_engine: Path) -> None:
    """What a device without PyTorch compares its plans with."""
    parity = compare(of_engine(demo_engine), demo_engine, bundled_examples())
    assert (parity.slices, parity.max_logit_difference, parity.mask_agreement) == (9, 0.0, 1.0)
