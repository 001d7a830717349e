"""Which kernels a TensorRT engine gets, and where their tensors may begin; no TensorRT is needed."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import child_work
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lsms_rt.engine import open_directory
from lsms_rt.engine.backend import SentenceFeatures
from lsms_rt.errors import EngineError, OutOfDeviceMemoryError
from lsms_rt.export import build, child, kernel_choice
from lsms_rt.export.build import build_engine
from lsms_rt.export.directory import Draft
from lsms_rt.export.kernel_alignment import check_alignment
from lsms_rt.export.options import BuildOptions, GateOptions
from lsms_rt.kernels.plugins import DOMAIN

# ------------------------------------------------------------------------------------------------- stock or ours


@pytest.fixture
def made(demo_engine: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Drafts of both engines, and a clock by which a run of each takes as long as is said."""
    clock = SimpleNamespace(now=0.0, ms={"stock": 10.0, "triton": 10.0}, closed=[], error=None)

    class Backend:
        def __init__(self, name: str) -> None:
            self.name = name

        def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
            return SentenceFeatures({}, mask)

        def segment(self, images: np.ndarray, text: SentenceFeatures) -> None:
            clock.now += clock.ms[self.name] * len(images) / 1000

        def close(self) -> None:
            clock.closed.append(self.name)

    def opened(engine: Any) -> Backend:
        if clock.error is not None and engine.manifest.kernels == "triton":
            raise clock.error
        return Backend(engine.manifest.kernels)

    monkeypatch.setattr("lsms_rt.export.auto.time.perf_counter", lambda: clock.now)
    monkeypatch.setattr(kernel_choice, "open_backend", opened)
    manifest = replace(open_directory(demo_engine).manifest, backend="tensorrt", precision="fp16")
    drafts = {name: Draft(demo_engine, replace(manifest, kernels=name)) for name in ("stock", "triton")}
    return SimpleNamespace(clock=clock, stock=drafts["stock"], triton=drafts["triton"])


def tried(made: Any, batch: int) -> Any:
    return (made.triton, made.triton), kernel_choice.times(made.stock, made.triton, batch)


@pytest.mark.parametrize(("triton", "kept"), [(8.9, "triton"), (9.1, "stock"), (20.0, "stock")])
def test_plugins_are_taken_where_they_gain_enough(made: Any, triton: float, kept: str) -> None:
    made.clock.ms["triton"] = triton
    said: list[str] = []
    pairs = [(engine, engine) for engine in (made.stock, made.triton)]
    graphs, engine = kernel_choice.faster(pairs[0], lambda: tried(made, 4), 4, said.append)
    assert (graphs.manifest.kernels, engine.manifest.kernels) == (kept, kept)
    why = f"stock 10.00, triton {triton:.2f} ms a slice in batches of 4 on this GPU; triton at 90% or less"
    assert said == [f"kernels: {kept} ({why})"]
    record = engine.manifest.plan_options["kernels"]
    assert record.pop("ms_per_slice") == pytest.approx({"stock": 10.0, "triton": triton})
    assert record == {"why": why, "batch": 4}
    assert made.clock.closed == ["stock", "triton"]


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (child_work.refuses, "TypeError: no such plugin"),
        (child_work.crashes, "its process was ended by signal 11"),
        (child_work.ends, "its process was ended with exit code 3"),
        (child_work.answers_what_cannot_be_sent, "(AttributeError|PicklingError): .*lambda.*"),
    ],
)
def test_where_plugins_fail_the_engine_is_stock(made: Any, work: Any, why: str) -> None:
    """Whatever ends their process, the build goes on, and its record says what it was."""
    said: list[str] = []
    _, engine = kernel_choice.faster((made.stock, made.stock), lambda: child.call(work), 1, said.append)
    assert engine.manifest.kernels == "stock"
    found = engine.manifest.plan_options["kernels"]["why"]
    assert re.fullmatch(f"the comparison with plugins failed: {why}", found)
    assert said == [f"kernels: stock ({found})"]


def test_an_engine_that_does_not_open_leaves_none_open(made: Any) -> None:
    made.clock.error = OutOfDeviceMemoryError("too little memory")
    with pytest.raises(OutOfDeviceMemoryError):
        tried(made, 1)
    assert made.clock.closed == ["stock"]


def test_a_process_answers_with_drafts_and_is_heard(made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    answer = child.call(child_work.returns, made.triton, say=said.append, progress=None)
    assert answer == (made.triton, True) and said == ["half", "done"]
    # What libraries print is in nobody's way.
    assert capfd.readouterr() == ("", "printed\n")


def test_a_listener_that_raises_ends_the_process(tmp_path: Path) -> None:
    """Ctrl-C among them."""

    def stop(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.call(child_work.waits, tmp_path / "left", say=stop)
    assert not (tmp_path / "left").exists()


def test_plans_that_do_not_run_are_not_compared(made: Any) -> None:
    _, engine = kernel_choice.faster((made.stock, replace(made.stock, not_run="no pycuda")), pytest.fail, 1, print)
    assert engine.manifest.plan_options["kernels"] == {"why": "not compared: no pycuda"}


@pytest.mark.parametrize("kernels", ["auto", "stock"])
def test_a_build_makes_both_and_keeps_the_faster(
    made: Any, kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or says why it made one."""
    built: list[str] = []

    def make(*arguments: Any) -> Any:
        model, folder = arguments[-2:]
        built.append(f"{model.kernels} in {folder.name}")
        draft = made.stock if model.kernels == "stock" else made.triton
        return draft, draft

    def called(work: Any, *given: Any, **listeners: Any) -> Any:
        work, given = pickle.loads(pickle.dumps((work, given)))
        return work(*given, **listeners)

    monkeypatch.setattr(build, "check_build", lambda _: kernels)
    monkeypatch.setattr(build, "load_model", lambda *which: SimpleNamespace(kernels=which[-1], config=config))
    monkeypatch.setattr(build, "_make", make)
    monkeypatch.setattr(Draft, "finish", lambda *_: None)
    monkeypatch.setattr(build.child, "call", called)
    monkeypatch.setattr(kernel_choice, "not_compared", lambda _: "plugins need TensorRT 10.15, this is 10.3")
    config = SimpleNamespace(image_size=64, in_channels=1)
    made.clock.ms["triton"] = 5.0
    options = BuildOptions(backend="tensorrt", precision="fp16", gate=GateOptions(sentences=0))
    manifest = build_engine(options, tmp_path / "a.engine")
    assert built == ["stock in made", "plugins in plugins"][: 2 if kernels == "auto" else 1]
    assert manifest.kernels == ("triton" if kernels == "auto" else "stock")
    why = manifest.plan_options["kernels"]["why"]
    assert why.startswith("stock 10.00" if kernels == "auto" else "not compared: plugins need TensorRT 10.15")


# ------------------------------------------------------------------------------------------------ alignment


def graph(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (0, 4, 32, 8)) -> onnx.ModelProto:
    """A graph of nodes on ``x``, fp16, whose first size is not known; sizes of ``whole`` are those of ``x``."""
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["b", *shape[1:]]) for n in ("x", "whole", "outer_whole")
    ]
    made = helper.make_graph([*nodes], "g", values[:1], values[1:])
    for name, numbers in (("one", [1]), ("axis", [3]), ("outer", [1])):
        made.initializer.append(numpy_helper.from_array(np.array(numbers), name))
    return helper.make_model(made)


def kernel(source: str, *more: str) -> onnx.NodeProto:
    return helper.make_node("gate", [source, *more], ["y"], domain=DOMAIN)


def slice_of(axes: str) -> onnx.NodeProto:
    return helper.make_node("Slice", ["x", "one", "one", axes], ["part"])


GATHER = helper.make_node("Gather", ["x", "one"], ["part"], axis=1)
SQUEEZE = helper.make_node("Squeeze", ["part"], ["flat"])
OTHER_VIEW = helper.make_node("Identity", ["x"], ["same"])
SAME = helper.make_node("Identity", ["x"], ["part"])
IDENTITY = helper.make_node("Identity", ["y"], ["same"])
OUTER = helper.make_node("Concat", ["z", "y"], ["outer_whole"], axis=1)
IDENTITY_OF_OUTER = helper.make_node("Identity", ["outer_whole"], ["same"])
LAST = helper.make_node("Concat", ["z", "same"], ["whole"], axis=3)


@pytest.mark.parametrize(
    "nodes",
    [
        (kernel("x"),),
        # 32 * 8 * 2 bytes a step.
        (GATHER, SQUEEZE, kernel("flat")),
        (slice_of("outer"), kernel("part")),
        (kernel("x"), helper.make_node("Concat", ["x", "y"], ["whole"], axis=1)),
        # What is computed of a part is no part.
        (slice_of("axis"), helper.make_node("Relu", ["part"], ["z"]), kernel("z")),
    ],
)  # fmt: skip
def test_tensors_that_begin_at_16_bytes(nodes: tuple[onnx.NodeProto, ...]) -> None:
    check_alignment(graph(*nodes))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((slice_of("axis"), SQUEEZE, kernel("x", "flat")), "Slice.* 2 bytes"),
        ((slice_of("z"), kernel("part")), "Slice.*of 0 bytes"),
        ((helper.make_node("Split", ["x"], ["z", "part"], axis=-1), kernel("part")), "Split.* 2 bytes, not of 16"),
        ((GATHER, helper.make_node("Gather", ["part", "one"], ["z"], axis=0), kernel("z")), "Gather.*of 0 bytes"),
        # What a kernel reads, and what it writes.
        ((kernel("z"), helper.make_node("Concat", ["x", "z"], ["whole"], axis=3)), "Concat.* 2 bytes"),
        ((kernel("x"), helper.make_node("Concat", ["z", "y"], ["whole"], axis=3)), "Concat.* 2 bytes"),
        ((kernel("x"), IDENTITY, LAST), "Concat.* 2 bytes"),
        # A part of a part, and another view of what a kernel reads.
        ((kernel("x"), OUTER, IDENTITY_OF_OUTER, LAST), "Concat.* 2 bytes"),
        ((SAME, SQUEEZE, kernel("flat"), OTHER_VIEW, LAST), "Concat.* 2 bytes"),
    ],
)  # fmt: skip
def test_tensors_that_may_begin_elsewhere(nodes: tuple[onnx.NodeProto, ...], words: str) -> None:
    with pytest.raises(EngineError, match=f"a tensor of a kernel is a part of another .{words}"):
        check_alignment(graph(*nodes))
