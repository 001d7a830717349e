"""The engine directory: refused when it is not what it was built as; equal to PyTorch when it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.manifest import MANIFEST, fields_digest, write_manifest
from lsms_rt.errors import EngineDigestError, EngineError, EngineFileMissingError, EngineFormatError, EngineInvalidError
from lsms_rt.segmenter import Segmenter


@pytest.fixture
def copy(demo_engine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_engine, tmp_path / "copy.engine"))


def edit(engine: Path, **changes: object) -> None:
    """Change the manifest as somebody would who also corrects its digest."""
    values = json.loads((engine / MANIFEST).read_text()) | changes
    (engine / MANIFEST).write_text(json.dumps(values | {"manifest_digest": fields_digest(values)}))


def test_an_intact_engine_opens(demo_engine: Path) -> None:
    engine = open_directory(demo_engine)
    # Engines of version 0.1 have no table of words.
    assert set(engine.manifest.files) - {"sentences.json"} == {"text.onnx", "image.onnx", "tokenizer.json"}
    assert all(engine.read(name) for name in engine.manifest.files)
    assert open_directory(demo_engine, engine.digest).digest == engine.digest
    assert engine.digest.startswith("sha256:")


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 0)])
def test_no_thread_is_bound_to_a_core_of_others(
    demo_engine: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    """0: the library chooses; it counts and takes all cores of the machine, whichever the process may use."""
    import onnxruntime as ort

    from lsms_rt.engine import onnxruntime

    monkeypatch.setattr(onnxruntime, "cpu_count", lambda: cores)
    monkeypatch.setattr(onnxruntime.os, "cpu_count", lambda: 2)
    made: list[Any] = []
    create = ort.SessionOptions
    monkeypatch.setattr(ort, "SessionOptions", lambda: made.append(create()) or made[-1])
    open_backend(open_directory(demo_engine)).close()
    assert [options.intra_op_num_threads for options in made] == [threads, threads]


@pytest.mark.parametrize("name", ["text.onnx", "image.onnx", "tokenizer.json"])
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(EngineDigestError, match=f"{name} has changed: sha256 .* build-engine"):
        Segmenter(copy)


@pytest.mark.parametrize("name", ["text.onnx", "image.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(EngineFileMissingError, match=f"{name} is missing in"):
        Segmenter(copy)


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFileMissingError, match="no such engine"):
        open_directory(tmp_path / "none")
    with pytest.raises(EngineFileMissingError, match=r"no manifest\.json"):
        open_directory(tmp_path)


def test_a_changed_value_in_the_manifest_is_refused(copy: Path) -> None:
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace("-160.0", "-960.0"))
    with pytest.raises(EngineDigestError, match="has changed since it was built"):
        Segmenter(copy)


def test_a_newer_format_is_refused(copy: Path) -> None:
    edit(copy, format=4, something_new=[1, 2])
    with pytest.raises(EngineFormatError, match="format 4, this lsms-rt reads up to 3"):
        Segmenter(copy)


def test_an_untrusted_manifest_is_refused(copy: Path) -> None:
    trusted = open_directory(copy).digest
    edit(copy, threshold=0.2)
    with pytest.raises(EngineDigestError, match="not the expected"):
        Segmenter(copy, digest=trusted)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"image_size": 0},
        {"image_size": "256"},
        {"image_size": True},
        {"max_batch": -1},
        {"max_tokens": 10**9},
        {"hu_window": [240, -160]},
        {"hu_window": 3},
        {"threshold": 1.5},
        {"confidence": None},
        {"files": {"../../etc/passwd": "00"}},
        {"files": ["image.onnx"]},
        {"backend": 7},
        {"weights_note": ["x"]},
    ],
)
def test_a_malformed_manifest_is_refused(copy: Path, changes: dict) -> None:
    edit(copy, **changes)
    with pytest.raises(EngineInvalidError):
        open_directory(copy)


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(EngineError) as caught:
        open_directory(copy)
    assert "\n" not in str(caught.value)


def test_another_backend_is_refused(copy: Path) -> None:
    edit(copy, backend="abacus")
    with pytest.raises(EngineInvalidError, match="'abacus'"):
        Segmenter(copy)


def test_a_file_that_is_no_graph_is_refused_even_with_a_right_digest(copy: Path) -> None:
    from dataclasses import replace

    from lsms_rt.digest import sha256

    manifest = open_directory(copy).manifest
    for garbage in (b"", b"not an onnx file" * 99):
        (copy / "image.onnx").write_bytes(garbage)
        write_manifest(copy, replace(manifest, files=manifest.files | {"image.onnx": sha256(garbage)}))
        with pytest.raises(EngineError):
            Segmenter(copy)
    # A graph, but of other inputs.
    text = (copy / "text.onnx").read_bytes()
    (copy / "image.onnx").write_bytes(text)
    write_manifest(copy, replace(manifest, files=manifest.files | {"image.onnx": sha256(text)}))
    with pytest.raises(EngineInvalidError, match="has inputs"):
        Segmenter(copy)


def test_a_batch_answers_as_its_slices_do(demo_engine: Path) -> None:
    backend = open_backend(open_directory(demo_engine))
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (3, 1, 256, 256)).astype(np.float32)
    tokens, mask = np.array([[2, 40, 50, 3] + [0] * 28]), np.zeros((1, 32), np.float32)
    mask[:, :4] = 1
    text = backend.encode_text(tokens, mask)
    together = backend.segment(images, text)
    assert together.shape == (3, 256, 256)
    for index in range(3):
        alone = backend.segment(images[index : index + 1], text)[0]
        # Sums are in another order.
        np.testing.assert_allclose(alone, together[index], rtol=0, atol=1e-4)
    backend.close()
    backend.close()
    with pytest.raises(EngineInvalidError, match="closed"):
        backend.segment(images, text)


@pytest.mark.parametrize("changes", [{"image_size": 512}, {"max_tokens": 16}, {"channels": 3}])
def test_a_manifest_that_does_not_fit_its_graphs_is_refused(copy: Path, changes: dict[str, int]) -> None:
    edit(copy, **changes)
    with pytest.raises(EngineInvalidError, match="has shape .* the manifest says"):
        Segmenter(copy)
