"""``lsms-rt export-triton``: what is written, and what is refused."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_engines
import pytest

from lsms_rt.cli.main import main
from lsms_rt.data import demo_engine
from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.engine.tensorrt.variant import TENSORRT
from lsms_rt.errors import InputError
from lsms_rt.triton_server import export
from lsms_rt.triton_server.config import TritonOptions


def exported(tmp_path: Path, *more: str, engine: Path | str = "demo") -> int:
    return main(["export-triton", str(engine), "-o", str(tmp_path / "models"), *more])


def config(tmp_path: Path, name: str = "demo") -> str:
    return (tmp_path / "models" / name / "config.pbtxt").read_text()


def test_it_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(tmp_path, "--instances", "2", "--queue", "5", "--wait", "7", "--threads", "3") == 0
    said = capsys.readouterr().out
    folder = tmp_path / "models" / "demo"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"config.pbtxt", "1/model.py", "1/engine/manifest.json", "1/engine/image.onnx", "warmup/text"} <= files
    assert all(file in said for file in files)
    assert open_directory(folder / "1" / "engine").digest == open_directory(demo_engine()).digest
    assert open_directory(demo_engine()).digest in said
    assert open_directory(demo_engine()).digest in config(tmp_path)
    for words in (
        "instance_group { count: 2 kind: KIND_CPU }", "max_queue_size: 5", "default_timeout_microseconds: 7000000",
        'key: "threads" value { string_value: "3" }', 'name: "DICOM" data_type: TYPE_STRING dims: [1] optional: true',
        'name: "TEXT" data_type: TYPE_STRING dims: [-1] }',
    ):  # fmt: skip
        assert words in config(tmp_path)
    # No other file, and none of the work.
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["demo"]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(tmp_path, "--json", "--name", "liver-1") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path / "models" / "liver-1")
    assert said["files"]["1/model.py"] == (tmp_path / "models" / "liver-1" / "1" / "model.py").stat().st_size


def test_a_model_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(tmp_path) == 0
    before = config(tmp_path)
    assert exported(tmp_path, "--queue", "5") == 2
    assert "delete that folder, or give another --name" in capsys.readouterr().err
    assert config(tmp_path) == before
    # Beside it.
    assert exported(tmp_path, "--name", "other") == 0


@pytest.mark.parametrize(
    ("engine", "more", "code", "words"),
    [
        ("nothing.engine", [], 4, "no such engine"),
        (".", [], 4, "not an engine directory"),
        ("demo", ["--digest", "sha256:" + "0" * 64], 4, "not the expected"),
        ("demo", ["--name", "a/b"], 2, "letters, digits"),
        ("demo", ["--name", 'a"'], 2, "letters, digits"),
        ("demo", ["--name", ""], 2, "letters, digits"),
        ("demo", ["--environment", 'a"b'], 2, "quote"),
        ("demo", ["--environment", ""], 2, "empty"),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str, more: list[str], code: int, words: str
) -> None:
    path = engine if engine == "demo" else str(tmp_path / engine)
    assert exported(tmp_path, *more, engine=path) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_changed_engine_is_refused(tmp_path: Path) -> None:
    copied = tmp_path / "copied.engine"
    copied.mkdir()
    for path in demo_engine().iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    (copied / "image.onnx").write_bytes((copied / "image.onnx").read_bytes()[:-1])
    assert exported(tmp_path, engine=copied) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["copied.engine"]


def test_the_repository_never_has_half_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folder lies in it, a server takes for a model, and does not start if it is none."""
    assert exported(tmp_path, "--name", "first") == 0
    seen: set[str] = set()
    put = export._put

    def watched(path: Path, data: bytes) -> None:
        put(path, data)
        seen.update(one.name for one in (tmp_path / "models").iterdir())

    monkeypatch.setattr(export, "_put", watched)
    monkeypatch.chdir(tmp_path / "models")
    assert main(["export-triton", "demo", "-o", "."]) == 0
    assert seen == {"first"}
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"first", "demo"}
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_of_two_exports_at_the_same_time_the_first_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = export._write

    def slow(*given: Any) -> dict[str, int]:
        monkeypatch.setattr(export, "_write", write)
        assert exported(tmp_path, "--queue", "5") == 0
        return write(*given)

    monkeypatch.setattr(export, "_write", slow)
    assert exported(tmp_path, "--queue", "7") == 2
    assert "has a model of the name demo" in capsys.readouterr().err
    assert "max_queue_size: 5" in config(tmp_path)


def test_a_repository_that_is_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    assert exported(tmp_path) == 2
    assert "give a folder below it" in capsys.readouterr().err


def test_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(tmp_path, "--gpus", "0", "2", "--instances", "2") == 0
    assert "instance_group { count: 2 kind: KIND_GPU gpus: [0, 2] }" in config(tmp_path)
    # Threads are shared out among all of them.
    assert 'key: "instances" value { string_value: "4" }' in config(tmp_path)
    assert exported(tmp_path, "--gpus", "--name", "all") == 0
    assert "instance_group { count: 1 kind: KIND_GPU }" in config(tmp_path, "all")
    engine = tmp_path / "openvino.engine"
    engine.mkdir()
    manifest = open_directory(demo_engine()).manifest
    write_manifest(engine, replace(manifest, backend="openvino"))
    assert exported(tmp_path, "--gpus", engine=engine) == 2
    assert "CPUs only; leave out --gpus" in capsys.readouterr().err


def test_an_engine_of_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs a GPU; one that brings code for the CPU needs somebody who vouches for it, since the server runs it."""
    engine = tmp_path / "plans.engine"
    directory, _ = fake_engines.engine_directory(engine, demo_engine(), TENSORRT)
    assert exported(tmp_path, engine=engine) == 2
    assert "GPUs only; give --gpus" in capsys.readouterr().err
    write_manifest(engine, replace(directory.manifest, plan_options={"version_compatible": True}))
    assert exported(tmp_path, "--gpus", engine=engine) == 4
    assert "--trust" in capsys.readouterr().err
    assert exported(tmp_path, "--gpus", "--trust", engine=engine) == 0
    assert "KIND_GPU" in config(tmp_path, "plans")


def test_names() -> None:
    with pytest.raises(InputError):
        TritonOptions(name="")
    assert TritonOptions(name="liver-2_b").name == "liver-2_b"
