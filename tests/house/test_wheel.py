"""The wheel, the sdist and a bare clone hold the same package, and a clean environment can run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIB = 2**20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git knows or would add, with their symbolic links; no build output."""
    folder = tmp_path_factory.mktemp("clone")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")):
        if os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build(source: Path, kind: str, output: Path) -> Path:
    """Build "wheel" or "sdist" with the setuptools of this environment, so that no index is needed."""
    code = f"import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(output)], cwd=source, check=True, capture_output=True)
    (built,) = output.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("wheel") / "source"
    shutil.copytree(clone, source, symlinks=True)
    return build(source, "wheel", source.parent)


def package_of_folder(root: Path) -> set[str]:
    """The files of the package below ``root``, symbolic links to folders followed."""
    found = set()
    for folder, _, names in os.walk(root / "lsms_rt", followlinks=True):
        path = Path(folder).relative_to(root)
        shipped = path.parts[:2] == ("lsms_rt", "data")
        shipped |= path.parts[:3] in (("lsms_rt", "serving", "page"), ("lsms_rt", "kernels", "tuned"))
        found |= {
            (path / name).as_posix() for name in names if shipped or name.endswith((".py", "py.typed", "english.json"))
        }
    return found


def package_of_wheel(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_package_of_the_clone(clone: Path, wheel: Path) -> None:
    expected = package_of_folder(clone)
    for folder in ("kernels", "export", "calibration", "bench", "datasets", "cli"):
        assert f"lsms_rt/{folder}/__init__.py" in expected
    assert package_of_wheel(wheel) == expected
    assert wheel.stat().st_size < 45 * MIB


def test_the_sdist_builds_the_same_wheel(clone: Path, wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(clone, source, symlinks=True)
    sdist = build(source, "sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    rebuilt = build(unpacked, "wheel", tmp_path)
    assert package_of_wheel(rebuilt) == package_of_wheel(wheel)


def test_a_bare_clone_imports_every_part(clone: Path) -> None:
    code = (
        "import lsms_rt, lsms_rt.kernels, lsms_rt.export, lsms_rt.calibration, lsms_rt.bench\n"
        "print(lsms_rt.__file__, lsms_rt.kernels.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": str(clone)}, cwd=clone.parent, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(clone / "lsms_rt/__init__.py"), str(clone / "lsms_rt/kernels/__init__.py")]


@pytest.mark.network
def test_a_clean_environment_segments(clone: Path, wheel: Path, tmp_path: Path) -> None:
    """Install the wheel with the runtime's dependencies alone; run it beside a clone, which must not hide it."""
    environment = tmp_path / "environment"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Its own pip would take longer to install than all the rest; this one installs by the new environment's Python.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    # README.md: 0.3 GB without PyTorch
    assert size < 325e6
    code = (
        "import importlib.util, json, lsms_rt, lsms_rt.kernels\n"
        "from lsms_rt.data import DATA\n"
        "seg = lsms_rt.Segmenter(lsms_rt.demo_engine())\n"
        "r = seg.predict(DATA / 'examples' / 'phantom_1.dcm', 'the lesion in the liver')\n"
        "print(json.dumps([importlib.util.find_spec('torch') is None, r.mask.shape, lsms_rt.__file__]))"
    )
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=clean)
    no_torch, shape, file = json.loads(done.stdout)
    assert no_torch
    assert shape == [256, 256]
    assert str(tmp_path) in file
    inspect = [environment / "bin" / "lsms-rt", "inspect", "demo"]
    done = subprocess.run(inspect, capture_output=True, cwd=clone, env=clean)
    assert done.returncode == 0
    build_engine = [python, "-m", "lsms_rt.cli", "build-engine", "-o", "x.engine"]
    done = subprocess.run(build_engine, capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 3
    assert "pip install 'lsms-rt[build]'" in done.stderr
