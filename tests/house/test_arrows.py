"""Imports point one way, and the runtime stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "triton", "scipy", "safetensors", "matplotlib"}
RUNTIME = {
    "answers", "atomic", "body", "cli", "ct_slice", "data", "digest", "encoded", "engine", "errors", "machine",
    "postprocess", "preprocess", "privacy", "reading", "runs", "segmentation", "segmenter", "sentences", "tokenizer",
    "writing",
}  # fmt: skip
# package or module -> those it may import from, at the top of a file or inside a function
ARROWS = {
    "errors": {"privacy"},
    "api_key": {"errors"},
    "digest": set(),
    "data": set(),
    "privacy": set(),
    "machine": set(),
    "atomic": {"errors"},
    "ct_slice": {"errors"},
    "tokenizer": {"digest", "errors"},
    "preprocess": {"body", "ct_slice", "errors"},
    "postprocess": {"ct_slice", "errors", "preprocess"},
    "reading": {"ct_slice", "errors", "privacy"},
    "writing": {"atomic", "ct_slice", "digest", "errors", "postprocess", "privacy", "reading"},
    "engine": {"atomic", "body", "digest", "errors", "machine"},
    "sentences": {"engine", "errors", "privacy", "tokenizer"},
    "segmentation": {"atomic", "ct_slice", "errors", "postprocess", "sentences", "writing"},
    "encoded": {"engine", "sentences", "tokenizer"},
    "answers": {"ct_slice", "encoded", "engine", "postprocess", "preprocess", "segmentation"},
    "segmenter": {
        "answers", "ct_slice", "encoded", "engine", "errors", "reading", "segmentation", "sentences", "tokenizer",
    },
    "runs": {
        "answers", "atomic", "ct_slice", "digest", "errors", "postprocess", "privacy", "reading", "records",
        "segmentation", "sentences", "tokenizer", "writing",
    },
    "archive": {
        "atomic", "engine", "errors", "machine", "privacy", "reading", "runs", "segmenter", "sentences", "writing",
    },
    "kserve_request": set(),
    "client": {"api_key", "errors", "kserve_request", "reading"},
    "serving": {
        "ct_slice", "data", "engine", "errors", "machine", "reading", "runs", "segmenter", "sentences", "writing",
    },
    "triton_server": {
        "atomic", "data", "digest", "engine", "errors", "kserve_request", "machine", "reading", "serving",
    },
    "archive_worker": {"digest", "errors", "privacy", "reading", "runs", "segmenter", "serving", "writing"},
    "mathematics": {"body"},
    "records": {"atomic", "digest", "errors", "machine"},
    "style": set(),
    "kernels": {"atomic", "digest", "machine", "mathematics", "records"},
    "model": {"errors", "kernels", "mathematics"},
    "datasets": {"atomic", "ct_slice", "digest", "errors", "machine", "postprocess", "privacy", "reading"},
    "graph": {"errors", "kernels"},
    "calibration": {
        "atomic", "datasets", "digest", "engine", "errors", "graph", "privacy", "segmenter", "sentences", "style",
        "tokenizer",
    },
    "export": {
        "atomic", "calibration", "ct_slice", "data", "datasets", "digest", "engine", "errors", "graph", "kernels",
        "machine", "model", "preprocess", "reading", "segmenter", "sentences", "tokenizer",
    },
    "bench": {
        "atomic", "calibration", "ct_slice", "data", "datasets", "digest", "engine", "errors", "export", "graph",
        "kernels", "kserve_request", "machine", "mathematics", "model", "postprocess", "reading", "records",
        "segmenter", "style", "triton_server",
    },
    "pytorch": {"data", "engine", "errors", "export", "machine", "model", "segmenter", "sentences", "tokenizer"},
    "body": set(),
    "training": {
        "atomic", "bench", "body", "ct_slice", "data", "datasets", "digest", "errors", "export", "mathematics", "model",
        "preprocess", "privacy", "pytorch", "reading", "records", "segmenter", "sentences", "style",
        "tokenizer",
    },
    "cli": {
        "answers", "api_key", "archive", "archive_worker", "atomic", "bench", "body", "calibration", "client",
        "ct_slice", "data", "datasets", "digest", "engine", "errors", "export", "machine", "mathematics",
        "postprocess", "privacy", "reading", "records", "runs", "segmentation", "segmenter", "sentences", "serving",
        "tokenizer", "training", "triton_server", "writing",
    },
}  # fmt: skip


# The mathematics of the model: its modules and the kernels both compute by it, and keep what they fold in packs.
MATHEMATICS = {"model.config", "model.functional", "model.folded", "model.folded_block", "model.packs"}
# Modules of bench that all other folders use; they import nothing but errors.
SHARED = {"bench.records": "records", "bench.provenance": "records", "bench.style": "style"}


def room_of(name: str) -> str:
    """The part of the house that a module belongs to, by its dotted name inside the package."""
    if name == "export.graph" or name.startswith("export.graph."):
        return "graph"
    if name in SHARED:
        return SHARED[name]
    return "mathematics" if name in MATHEMATICS else name.split(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Dotted names inside the package -> files.  The links to kernels/, export/, calibration/, bench/ are followed."""
    found = {}
    for folder, _, names in os.walk(ROOT / "lsms_rt", followlinks=True):
        for path in (Path(folder) / name for name in names if name.endswith(".py")):
            found[".".join(path.relative_to(ROOT / "lsms_rt").with_suffix("").parts)] = path
    return found


@cache
def imports(name: str, path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, ours as ``lsms_rt.x.y``."""
    package = ["lsms_rt", *name.split(".")[:-1]]
    seen = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            seen |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            seen |= {f"{target}.{alias.name}" for alias in node.names} if target == "lsms_rt" else {target}
    return seen


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_one_way(name: str) -> None:
    room = room_of(name)
    if room == "__init__":
        return
    ours = {i.removeprefix("lsms_rt.") for i in imports(name, modules()[name]) if i.startswith("lsms_rt.")}
    used = {room_of(i) for i in ours} - {room, "__version__"}
    assert used <= ARROWS[room], f"{name} imports {sorted(used - ARROWS[room])}"


def test_the_runtime_never_imports_the_build_side() -> None:
    for name, path in modules().items():
        if name.split(".")[0] in RUNTIME:
            heavy = {i.split(".")[0] for i in imports(name, path)} & HEAVY
            assert not heavy, f"{name} imports {heavy}"


def test_predicting_loads_no_heavy_module() -> None:
    code = (
        "import sys, numpy, lsms_rt\n"
        "with lsms_rt.Segmenter(lsms_rt.demo_engine()) as s:\n"
        "    s.predict(numpy.full((64, 64), -1000.0), 'the cyst')\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_measuring_needs_the_runtime_only() -> None:
    """``lsms-rt bench ENGINE`` and ``evaluate`` run where PyTorch and SciPy are not, their tables included."""
    code = (
        "import sys, lsms_rt.bench.engine, lsms_rt.bench.tables, lsms_rt.bench.accuracy.evaluate\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_model_needs_no_triton() -> None:
    """One file of the model knows the kernels, and loads them only when they are asked for."""
    knowing = [
        name
        for name, path in modules().items()
        if room_of(name) == "model" and "lsms_rt.kernels" in imports(name, path)
    ]
    assert knowing == ["model.forms"]
    code = "import sys, lsms_rt.model, lsms_rt.pytorch, lsms_rt.kernels; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_import_is_light_and_silent() -> None:
    code = "import time; t = time.perf_counter(); import lsms_rt; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert all(not run.stderr for run in runs)
    assert min(float(run.stdout) for run in runs) < 0.2  # seconds


def test_every_public_name_exists() -> None:
    import lsms_rt

    for name in lsms_rt.__all__:
        assert getattr(lsms_rt, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = lsms_rt.nothing_like_it


def test_the_version_is_one() -> None:
    import lsms_rt

    assert f'version = "{lsms_rt.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {lsms_rt.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_folder_of_modules_is_a_package() -> None:
    """``packages.find`` ships only folders with an ``__init__.py``."""
    folders = {path.parent for path in modules().values()}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
