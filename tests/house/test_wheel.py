"""The wheel in a clean environment that has the runtime's dependencies and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lsms_rt"}
    for wanted in (
        "lsms_rt/datasets/phantom/case.py",
        "export/build.py",
        "kernels/depthwise.py",
        "pytorch.py",
        "data/demo.engine/manifest.json",
        "data/demo/README.md",
        "py.typed",
    ):
        assert f"lsms_rt/{wanted}" in names
    assert wheel.stat().st_size < 45 * 2**20


def test_a_clean_environment_segments(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True)
    code = (
        "import importlib.util, json, lsms_rt\n"
        "from lsms_rt.data import DATA\n"
        "seg = lsms_rt.Segmenter(lsms_rt.demo_engine())\n"
        "r = seg.predict(DATA / 'examples' / 'phantom_1.dcm', 'the lesion in the liver')\n"
        "print(json.dumps([importlib.util.find_spec('torch') is None, r.mask.shape, lsms_rt.__file__]))"
    )
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    no_torch, shape, file = json.loads(done.stdout)
    assert no_torch
    assert shape == [256, 256]
    assert str(tmp_path) in file
    done = subprocess.run(
        [python, "-m", "lsms_rt.cli", "build-engine", "-o", "x.engine"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 3
    assert "pip install 'lsms-rt[build]'" in done.stderr
