"""The OpenVINO backend: it answers as ONNX Runtime does, in the precision that the engine states, or refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lsms_rt.digest import sha256
from lsms_rt.engine import Backend, open_backend, open_directory
from lsms_rt.engine import openvino as module
from lsms_rt.engine.backend import FEATURES, SentenceFeatures
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.errors import (
    CpuFeatureError,
    EngineDigestError,
    EngineInvalidError,
    InputError,
    MachineError,
    MissingDependencyError,
)
from lsms_rt.machine.cpu import Cpu
from lsms_rt.machine.gpu import Driver

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs lsms-rt[openvino]")
SIZE = 256
FLOAT, INT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT8


def engine_of(source: Path, folder: Path, **fields: object) -> Path:
    """Copy an engine under a manifest for OpenVINO."""
    engine = Path(shutil.copytree(source, folder / "ov.engine"))
    changes: dict[str, Any] = {"backend": "openvino"} | fields
    write_manifest(engine, replace(open_directory(engine).manifest, **changes))
    return engine


@pytest.fixture(scope="module")
def engine(demo_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_of(demo_engine, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def backend(engine: Path) -> Iterator[Backend]:
    opened = open_backend(open_directory(engine), threads=2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (5, 1, SIZE, SIZE)).astype(np.float32)


def tokens() -> tuple[np.ndarray, np.ndarray]:
    mask = (np.arange(32) < 9)[None].astype(np.float32)
    return np.where(mask > 0, np.arange(5, 37)[None], 0), mask


def has_bf16() -> bool:
    return "BF16" in module.capabilities(module.open_core())


@pytest.mark.slow
def test_fp32_answers_as_onnx_runtime_does(demo_engine: Path, backend: Backend, images: np.ndarray) -> None:
    reference = open_backend(open_directory(demo_engine), device="cpu")
    expected = reference.segment(images, reference.encode_text(*tokens()))
    text = backend.encode_text(*tokens())
    one = backend.segment(images[:1], text)
    batch = backend.segment(images, text)
    many = np.concatenate(list(backend.segment_many([images[:2], images[2:]], text)))
    assert one.shape == (1, SIZE, SIZE)
    assert one.dtype == np.float32
    # sums in another order: measured 3.5e-5 on logits up to 30
    assert np.allclose(one, expected[:1], atol=3e-4)
    assert np.allclose(batch, expected, atol=3e-4)
    assert np.array_equal(many, batch)


def test_an_answer_is_the_callers_own(backend: Backend, images: np.ndarray) -> None:
    text = backend.encode_text(*tokens())
    first = backend.segment(images[:1], text)
    kept = first.copy()
    backend.segment(images[1:2], text)
    assert np.array_equal(first, kept)


SIGNAL_AFTER_CLOSE = """
import gc, signal, sys
from lsms_rt.engine import open_backend, open_directory

signal.signal(signal.SIGTERM, lambda *_: print("heard"))
engine = open_directory(sys.argv[1])
first, second = (open_backend(engine, threads=1) for _ in range(2))
# In the order in which they were opened; what is closed must be gone.
first.close()
del first
gc.collect()
second.close()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals have no stack of their own")
def test_a_signal_is_heard_after_engines_were_closed(engine: Path) -> None:
    """See ``engine.signal_stack``; on processors for which OpenVINO sets no stack, this shows nothing."""
    done = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_CLOSE, str(engine)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@pytest.mark.slow
def test_several_callers_get_their_own_answers(backend: Backend, images: np.ndarray) -> None:
    text = backend.encode_text(*tokens())
    expected = [backend.segment(image[None], text) for image in images]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: backend.segment(images[i % 5][None], text), range(20)))
    for i, answer in enumerate(answers):
        assert np.array_equal(answer, expected[i % 5])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("openvino") or not has_bf16(), reason="this CPU has no bfloat16")
def test_bf16_is_bf16_and_near(demo_engine: Path, backend: Backend, images: np.ndarray, tmp_path: Path) -> None:
    half = open_backend(open_directory(engine_of(demo_engine, tmp_path, precision="bf16")))
    text = half.encode_text(*tokens())
    answer, expected = half.segment(images[:1], text), backend.segment(images[:1], backend.encode_text(*tokens()))
    half.close()
    # float32 is within 3e-4: it was another precision; measured 0.32
    assert 1e-2 < np.abs(answer - expected).max() < 2.0


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"precision": "bf16"}, "--precision fp32"),
        ({"precision": "int8", "calibration": {"rest": "bf16"}}, "--rest fp32"),
    ],
)
def test_a_cpu_without_bf16_is_told_what_to_build(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], fix: str
) -> None:
    monkeypatch.setattr(module, "capabilities", lambda core: ("FP32", "INT8"))
    path = engine_of(demo_engine, tmp_path, **fields)
    with pytest.raises(CpuFeatureError, match=rf"no instructions for \(OpenVINO finds FP32, INT8; .*{fix}"):
        open_backend(open_directory(path))
    with pytest.raises(CpuFeatureError, match="with --rest fp32"):
        module.check_machine("int8", "bf16")
    module.check_machine("fp32", None)


def test_a_cpu_without_vnni_does_not_run_int8(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would, with sums that saturate: other answers than those that the gate judged."""
    monkeypatch.setattr(module, "find", lambda: Cpu(name="Haswell", instructions=("avx2",)))
    path = engine_of(demo_engine, tmp_path, precision="int8", calibration={"rest": "fp32"})
    with pytest.raises(CpuFeatureError, match="would overflow on this processor .Haswell; avx2; "):
        open_backend(open_directory(path))
    assert "int8" not in module.diagnose("openvino", Driver(problem="none"), None)["precisions"]
    # A system that does not tell is believed.
    monkeypatch.setattr(module, "find", lambda: Cpu(name="a Mac", instructions=None))
    assert "int8" in module.diagnose("openvino", Driver(problem="none"), None)["precisions"]


@pytest.mark.parametrize("fields", [{"precision": "fp16"}, {"precision": "int8", "calibration": {"rest": "fp16"}}])
def test_float16_is_refused(demo_engine: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(EngineInvalidError, match="fp16, not fp32 or bf16; rebuild it"):
        open_backend(open_directory(engine_of(demo_engine, tmp_path, **fields)))


def test_a_changed_graph_is_refused_though_its_compiled_form_is_cached(
    engine: Path, tmp_path: Path, backend: Backend
) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / "changed.engine"))
    data = bytearray((copy / "image.onnx").read_bytes())
    data[-100] ^= 1
    (copy / "image.onnx").write_bytes(data)
    with pytest.raises(EngineDigestError, match=r"image\.onnx has changed"):
        open_backend(open_directory(copy))


def test_a_manifest_of_another_size_is_refused(engine: Path, tmp_path: Path, backend: Backend) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / "other.engine"))
    write_manifest(copy, replace(open_directory(copy).manifest, image_size=128))
    with pytest.raises(EngineInvalidError, match="input image has shape"):
        open_backend(open_directory(copy))


def test_a_file_that_is_no_graph_is_refused(engine: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / "none.engine"))
    manifest = open_directory(copy).manifest
    # a message without a graph, which is an ONNX file by its encoding
    (copy / "image.onnx").write_bytes(b"\x08\x07")
    files = manifest.files | {"image.onnx": sha256(b"\x08\x07")}
    write_manifest(copy, replace(manifest, files=files))
    with pytest.raises(EngineInvalidError, match=r"image\.onnx"):
        open_backend(open_directory(copy))


@pytest.mark.slow
def test_the_compiled_graph_is_kept_for_this_user(
    engine: Path, backend: Backend, images: np.ndarray, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = list(cache_folder.glob("*/*/image.onnx.cache"))
    assert files
    assert all(os.stat(file).st_mode & 0o077 == 0 for file in files)
    again = open_backend(open_directory(engine), threads=2)
    text = again.encode_text(*tokens())
    assert np.array_equal(again.segment(images[:1], text), backend.segment(images[:1], text))
    again.close()
    damaged = next(file for file in files if file.parent.name.endswith("-f32"))
    whole = damaged.read_bytes()
    try:
        damaged.write_bytes(whole[:-1])
        open_backend(open_directory(engine), threads=2).close()
        assert "is compiled again" in caplog.text
        caplog.clear()
        # It was written again.
        open_backend(open_directory(engine), threads=2).close()
        assert caplog.text == ""
    finally:
        damaged.write_bytes(whole)


def test_a_closed_engine_and_one_of_a_parent_say_so(engine: Path, images: np.ndarray) -> None:
    opened = open_backend(open_directory(engine), threads=1)
    text = opened.encode_text(*tokens())
    # One thread: the single form serves a series, too.
    assert opened.segment(images[:2], text).shape == (2, SIZE, SIZE)
    opened.close()
    opened.close()
    with pytest.raises(EngineInvalidError, match="has been closed"):
        opened.segment(images[:1], text)
    with pytest.raises(EngineInvalidError, match="has been closed"):
        next(opened.segment_many([images[:1]], text))


def test_it_runs_on_cpus_only(engine: Path) -> None:
    with pytest.raises(InputError, match="an engine of openvino runs on cpu; for cuda build one of onnxruntime or"):
        open_backend(open_directory(engine), device="cuda")


def test_without_openvino_the_message_says_how_to_install_it(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lsms-rt\[openvino\]'"):
        open_backend(open_directory(engine))
    found = module.diagnose("openvino", Driver(problem="none"), None)
    assert (found["version"], found["runs"]) == (None, False)
    assert "openvino" in found["fix"]


def test_a_broken_library_is_no_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libopenvino.so: wrong ELF class')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MachineError, match="cannot be loaded") as caught:
        module.load()
    assert not isinstance(caught.value, MissingDependencyError)


def test_doctor_sees_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module.diagnose("openvino", Driver(problem="none"), None)
    assert (found["builds"], found["runs"]) == (True, True)
    assert ("bf16" in found["precisions"]) == has_bf16()
    monkeypatch.setattr(module, "capabilities", lambda core: ("FP32",))
    assert "bf16" not in module.diagnose("openvino", Driver(problem="none"), None)["precisions"]
    monkeypatch.setattr(module, "can_build", lambda: False)
    found = module.diagnose("openvino", Driver(problem="none"), None)
    assert found["from_engines_only"]
    assert "of engines only (--from)" in found["missing"]


def test_an_installation_that_does_not_work_is_a_problem_of_the_machine(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_plugin(core: object) -> tuple[str, ...]:
        raise RuntimeError("Device with CPU name is not registered in the OpenVINO Runtime")

    monkeypatch.setattr(module, "capabilities", no_plugin)
    with pytest.raises(MachineError, match="does not work here .*install it again"):
        open_backend(open_directory(engine))
    assert module.diagnose("openvino", Driver(problem="none"), None)["version"] is None
    # A folder of that name.
    monkeypatch.setattr(module, "load", lambda: types.SimpleNamespace())
    with pytest.raises(MachineError, match="does not work here"):
        module.open_core()


def odd_graph(image: list[Any] | None, kind: int = FLOAT, domain: str = "", scalar: bool = False) -> bytes:
    """A graph that no build makes: the image itself, or its maximum, as logits."""
    shapes: dict[str, Any] = {"image": image, "mask": [1, 32]} | {name: [1, 64, 32, 64] for name in FEATURES}
    inputs = [
        helper.make_tensor_value_info(name, kind if name == "image" else FLOAT, shape) for name, shape in shapes.items()
    ]
    nodes = [helper.make_node("Relu", ["image"], ["logits"], domain=domain)]
    if scalar:
        # Of every input: OpenVINO drops those that are not used.
        nodes = [helper.make_node("ReduceMax", [name], [f"max {name}"], keepdims=0) for name in shapes]
        nodes.append(helper.make_node("Sum", [f"max {name}" for name in shapes], ["logits"]))
    graph = helper.make_graph(nodes, "odd", inputs, [helper.make_tensor_value_info("logits", FLOAT, None)])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("OpenVINO cannot (read|compile)", {"domain": "com.example"}),
        ("not what lsms-rt builds", {"image": None}),
        ("not what lsms-rt builds", {"kind": INT8}),
        ("logits of 0 dimensions", {"scalar": True}),
    ],
)
def test_odd_graphs_are_refused_in_one_line(engine: Path, tmp_path: Path, words: str, options: dict[str, Any]) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / "odd.engine"))
    data = odd_graph(**{"image": [1, 1, SIZE, SIZE]} | options)
    (copy / "image.onnx").write_bytes(data)
    manifest = open_directory(copy).manifest
    write_manifest(copy, replace(manifest, files=manifest.files | {"image.onnx": sha256(data)}))
    # Features of the sizes that the odd graphs take.
    text = SentenceFeatures({name: np.zeros((1, 64, 32, 64), np.float32) for name in FEATURES}, tokens()[1])
    image = np.zeros((1, 1, SIZE, SIZE), np.float32)
    with pytest.raises(EngineInvalidError, match=words) as caught:
        open_backend(open_directory(copy), threads=1).segment(image, text)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_nothing_is_sent_and_nothing_written_at_home(engine: Path, tmp_path: Path) -> None:
    """OpenVINO's import tells its maker about it, and keeps an identifier in the user's folder."""
    code = (
        "import sys; from lsms_rt.engine import open_backend, open_directory\n"
        f"open_backend(open_directory({str(engine)!r}), threads=1).close()\n"
        "import openvino\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')], 'telemetry'\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "CI": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert list(home.iterdir()) == []


def test_threads_that_end_leave_nothing(backend: Backend, images: np.ndarray) -> None:
    """A server's threads come and go; each has a request of its own, which ends with it."""
    text, requests = backend.encode_text(*tokens()), []
    runner = backend._graphs["image.onnx"]  # type: ignore[attr-defined]

    def run() -> None:
        backend.segment(images[:1], text)
        requests.append(weakref.ref(runner._requests.request))

    for _ in range(3):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert [request() for request in requests] == [None, None, None]
