"""The table of backends: a row is all that the rest of the package needs, and nothing else knows names."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.cli import doctor
from lsms_rt.cli.main import COMMANDS, main
from lsms_rt.cli.parser import make_parser
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.engine.registry import BACKENDS, BackendSpec, find_backend
from lsms_rt.engine.tensorrt.variant import VARIANTS
from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.machine.gpu import Driver
from lsms_rt.tokenizer import Tokens

PACKAGE = Path(__file__).parents[2] / "lsms_rt"
# Whose subject is the names themselves.
TABLES = {PACKAGE / "engine/registry.py", PACKAGE / "engine/tensorrt/variant.py"}
ABACUS = BackendSpec("abacus", "Abacus", "fake_backend", devices=("cpu", "beads"), install="pip install abacus")


@pytest.fixture
def abacus(demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of a new backend, which is added to the table and nowhere else."""
    monkeypatch.setitem(BACKENDS, ABACUS.name, ABACUS)
    engine = Path(shutil.copytree(demo_engine, tmp_path / "abacus.engine"))
    write_manifest(engine, replace(open_directory(engine).manifest, backend=ABACUS.name))
    return engine


def test_a_new_row_opens_predicts_and_inspects(
    abacus: Path, abdomen: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    with Segmenter(abacus) as segmenter:
        mask = segmenter.predict(abdomen, "the cyst in the liver").mask
    # The liver is bright, the air is not.
    assert mask[44, 32]
    assert not mask[0, 0]
    assert main(["inspect", str(abacus), "--json"]) == 0
    assert '"abacus"' in capsys.readouterr().out
    assert open_backend(open_directory(abacus), device="beads:1").version == "7.0"
    with pytest.raises(InputError, match="an engine of abacus runs on cpu, beads; for cuda build one of onnxruntime"):
        open_backend(open_directory(abacus), device="cuda")
    assert "--backend abacus --precision fp32" in open_directory(abacus).manifest.rebuild


def test_a_new_row_is_offered_and_examined(abacus: Path) -> None:
    from lsms_rt.bench.engine import gpu_index
    from lsms_rt.export.options import BuildOptions
    from lsms_rt.export.references import of_engine

    options = make_parser(COMMANDS).parse_args(["build-engine", "--backend", "abacus", "-o", "x"])
    assert options.backend == "abacus"
    assert doctor._backends(Driver(problem="none"), None)["abacus"]["runs"] is True
    built = BuildOptions(backend="abacus")
    assert (built.for_cpu, built.variant) == (True, None)
    assert gpu_index(open_directory(abacus).manifest, None) is None
    tokens = Tokens(np.zeros((1, 32), np.int64), np.ones((1, 32), np.float32))
    assert of_engine(abacus)(np.zeros((1, 1, 256, 256), np.float32), tokens).shape == (256, 256)


def test_an_unknown_backend_is_refused_with_the_known_ones(demo_engine: Path) -> None:
    directory = open_directory(demo_engine)
    strange = replace(directory, manifest=replace(directory.manifest, backend="tvm"))
    with pytest.raises(EngineInvalidError, match="'tvm'.* runs: onnxruntime, openvino, tensorrt, tensorrt-rtx"):
        open_backend(strange)
    with pytest.raises(EngineInvalidError, match="'TensorRT'"):
        find_backend("TensorRT", "an engine")


def test_every_row_has_a_module_with_all_functions() -> None:
    for spec in BACKENDS.values():
        module = spec.load()
        for function in ("open_engine", "library_version", "check_machine", "gpu_index", "diagnose"):
            assert callable(getattr(module, function)), f"{spec.module}.{function}"
    assert [spec.name for spec in BACKENDS.values() if spec.builds_plans] == list(VARIANTS)


def test_the_table_is_light() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "pycuda", "tensorrt"}
    code = f"import sys, lsms_rt.engine.registry; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def compared_names(path: Path) -> list[str]:
    """Lines of a file that compare something with a backend's name: ``==``, ``in``, ``match``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        constants = {leaf.value for side in sides for leaf in ast.walk(side) if isinstance(leaf, ast.Constant)}
        if constants & set(BACKENDS):
            found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_no_name_is_compared_outside_the_table() -> None:
    files = [Path(folder) / name for folder, _, names in os.walk(PACKAGE, followlinks=True) for name in names]
    sources = [path for path in files if path.suffix == ".py" and path not in TABLES]
    assert len(sources) > 150
    assert [line for path in sources for line in compared_names(path)] == []


def test_the_search_for_compared_names_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text(
        'x = y == "onnxruntime"\nx = (y, z) != ("tensorrt", 1)\nx = y in ("a", "tensorrt-rtx")\n'
        'match x:\n    case "tensorrt":\n        pass\nx = "onnxruntime"\n'
    )
    assert compared_names(tmp_path / "a.py") == ["a.py:1", "a.py:2", "a.py:3", "a.py:5"]
