"""The cache of exported graphs: what is in it is used only for the same model, and only undamaged."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lsms_rt.export import graph_cache
from lsms_rt.export.graph_cache import cached_graphs, graph_key
from lsms_rt.export.graphs import export_named
from lsms_rt.machine.cache import cache_folder as users_cache
from lsms_rt.model import LSMS, TextConfig, preset

pytestmark = pytest.mark.xdist_group("exports")
TEXT = TextConfig(vocab_size=20, hidden_size=32, layers=1, heads=1, intermediate_size=32)
GRAPHS = {"text.onnx": b"words\nand more", "image.onnx": b"\x00pixels" * 100}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LSMS:
    monkeypatch.setenv("LSMS_RT_CACHE", str(tmp_path))
    torch.manual_seed(0)
    return LSMS(preset("tiny", image_size=64, text=TEXT)).eval()


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "graphs").iterdir())


def export() -> dict[str, bytes]:
    export.calls += 1  # type: ignore[attr-defined]
    return dict(GRAPHS)


@pytest.fixture(autouse=True)
def no_calls() -> None:
    export.calls = 0  # type: ignore[attr-defined]


def test_a_model_is_exported_once(model: LSMS, tmp_path: Path) -> None:
    assert cached_graphs(model, export) == GRAPHS == cached_graphs(model, export)
    assert export.calls == 1  # type: ignore[attr-defined]
    (entry,) = entries(tmp_path)
    assert entry.stat().st_mode & 0o077 == 0


def test_whatever_changes_the_graphs_changes_the_key(model: LSMS, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [graph_key(model), graph_key(LSMS(preset("tiny", image_size=96, text=TEXT)))]
    with torch.no_grad():
        model.decoder.predict.bias[0] += 1
    keys += [graph_key(model), graph_key(model.half())]
    monkeypatch.setattr(graph_cache, "_version", lambda library: "another")
    keys.append(graph_key(model))
    monkeypatch.setattr(graph_cache, "SOURCES", ("model",))
    keys.append(graph_key(model))
    assert len(set(keys)) == len(keys)
    assert graph_key(model) == keys[-1]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b"", lambda b: b"[1]\n"])
def test_a_damaged_entry_is_made_again(
    model: LSMS, tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    cached_graphs(model, export)
    (entry,) = entries(tmp_path)
    data = entry.read_bytes()
    entry.write_bytes(damage(data))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "lsms_rt"):
        assert cached_graphs(model, export) == GRAPHS
    assert "is damaged" in caplog.text
    assert export.calls == 2  # type: ignore[attr-defined]
    assert entry.read_bytes() == data
    assert entries(tmp_path) == [entry]


def test_the_least_recently_used_entries_are_removed(
    model: LSMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_graphs(model, export)
    (used,) = entries(tmp_path)
    for age, name in ((200, "older"), (100, "old")):
        (tmp_path / "graphs" / name).write_bytes(bytes(500))
        os.utime(tmp_path / "graphs" / name, (used.stat().st_mtime - age,) * 2)
    monkeypatch.setattr(graph_cache, "MAX_BYTES", 2500)
    with torch.no_grad():
        model.decoder.predict.bias[0] += 1
    cached_graphs(model, export)
    names = {path.name for path in entries(tmp_path)}
    assert "older" not in names
    assert {"old", used.name} < names


def test_it_can_be_disabled_and_need_not_be_writable(
    model: LSMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LSMS_RT_CACHE", str(tmp_path / "file"))
    assert cached_graphs(model, export) == GRAPHS
    assert "are not cached: Not a directory" in caplog.text
    monkeypatch.setenv("LSMS_RT_CACHE", "")
    assert users_cache() is None
    assert cached_graphs(model, export) == GRAPHS
    assert export.calls == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", None, ".cache/lsms-rt"),
        ("linux", "XDG_CACHE_HOME", "here/lsms-rt"),
        ("darwin", None, "Library/Caches/lsms-rt"),
        ("win32", "LOCALAPPDATA", "here/lsms-rt"),
    ],
)
def test_its_place_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variable: str | None, expected: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LSMS_RT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "here"))
    assert users_cache() == tmp_path / expected


@pytest.mark.slow
def test_the_cache_of_a_session_holds_what_the_exporter_wrote(exported_graphs, cache_folder: Path) -> None:  # type: ignore[no-untyped-def]
    folder = exported_graphs(128, "fp32")
    entries_of = [path.read_bytes() for path in entries(cache_folder)]
    assert any((folder / "image.onnx").read_bytes() in data for data in entries_of)
    assert str(Path(__file__).parents[2]).encode() not in entries_of[0]


@pytest.mark.parametrize("kernels", ["triton", "reference"])
def test_a_form_that_cannot_be_exported_is_refused(kernels: str) -> None:
    """It would be called stock operations in the manifest."""
    model: Any = SimpleNamespace(kernels=kernels)
    with pytest.raises(ValueError, match=f"kernels='{kernels}' cannot be exported; load it with kernels='stock'"):
        export_named(model)
