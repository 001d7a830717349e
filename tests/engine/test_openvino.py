"""The OpenVINO backend: it answers as ONNX Runtime does, in the precision that the engine states, or refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt.engine import Backend, open_backend, open_directory
from lsms_rt.engine import openvino as module
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.errors import (
    CpuFeatureError,
    EngineDigestError,
    EngineInvalidError,
    InputError,
    MachineError,
    MissingDependencyError,
)
from lsms_rt.machine.gpu import Driver

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs lsms-rt[openvino]")
SIZE = 256


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
    return "BF16" in module.capabilities(module.load().Core())


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


def test_several_callers_get_their_own_answers(backend: Backend, images: np.ndarray) -> None:
    text = backend.encode_text(*tokens())
    expected = [backend.segment(image[None], text) for image in images]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: backend.segment(images[i % 5][None], text), range(20)))
    for i, answer in enumerate(answers):
        assert np.array_equal(answer, expected[i % 5])


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
    with pytest.raises(CpuFeatureError, match="bfloat16"):
        module.check_precision("bf16")
    module.check_precision("fp32")


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
    from lsms_rt.digest import sha256

    copy = Path(shutil.copytree(engine, tmp_path / "none.engine"))
    manifest = open_directory(copy).manifest
    # a message without a graph, which is an ONNX file by its encoding
    (copy / "image.onnx").write_bytes(b"\x08\x07")
    files = manifest.files | {"image.onnx": sha256(b"\x08\x07")}
    write_manifest(copy, replace(manifest, files=files))
    with pytest.raises(EngineInvalidError, match=r"image\.onnx"):
        open_backend(open_directory(copy))


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
        # It was written again.
        assert damaged.read_bytes()[32:] != b""
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
    assert found["runs"]
    assert ("bf16" in found["precisions"]) == has_bf16()
    monkeypatch.setattr(module, "capabilities", lambda core: ("FP32",))
    assert module.diagnose("openvino", Driver(problem="none"), None)["precisions"] == ["fp32", "int8"]


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
    text, errors = backend.encode_text(*tokens()), []

    def run() -> None:
        try:
            backend.segment(images[:1], text)
        except Exception as error:
            errors.append(error)

    for _ in range(5):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert errors == []
