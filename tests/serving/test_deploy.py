"""Deployment files: the steps of the Dockerfiles in an empty folder, and files that are what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.mark.slow
def test_the_dockerfiles_steps(tmp_path: Path) -> None:
    """Without libraries of this environment: the server starts from what install.sh installs, and nothing else."""
    if os.environ.get("LSMS_RT_TEST_INSTALL", os.environ.get("CI", "")) in ("", "0"):
        pytest.skip("it downloads 100 MB; set LSMS_RT_TEST_INSTALL=1")
    prefix = tmp_path / "prefix"
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", ".venv*", "out", "*.egg-info", "tests", "build", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHON": sys.executable}
    script = ["sh", "deploy/install.sh", str(prefix), "serve"]
    done = subprocess.run(script, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    size = sum(path.stat().st_size for path in prefix.rglob("*") if path.is_file() and not path.is_symlink())
    # docs/serving.md and the Dockerfile's goal: with Python's slim image (130 MB) about 400 MB.
    assert size < 340e6
    assert not list(prefix.rglob("torch"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(prefix / "bin" / "lsms-rt"), "serve", "demo", "--port", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        end = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
                    assert json.load(answer) == {"ready": True}
                    break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < end
                time.sleep(0.3)
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_files_are_what_they_say() -> None:
    for path in DEPLOY.glob("*.json"):
        assert "folder.sh" in path.read_text()
        json.loads(path.read_text())
    table = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in table, path.name
    for name in ("cpu", "gpu"):
        text = (DEPLOY / f"{name}.Dockerfile").read_text()
        assert "sh deploy/install.sh /opt/lsms-rt" in text
        assert re.search(r"^USER lsms$", text, re.MULTILINE)
        for source in re.findall(r"^COPY (deploy/\S+)", text, re.MULTILINE):
            assert (ROOT / source).is_file()


def test_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert [one["kind"] for one in documents] == ["Deployment", "Service"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert {"lsms-rt", "orthanc"} <= set(compose["services"])


@pytest.mark.slow
def test_folder_in_folder_out(tmp_path: Path, demo_engine: Path) -> None:
    example = demo_engine.parent / "examples" / "phantom_1.dcm"
    (tmp_path / "in").mkdir()
    shutil.copy(example, tmp_path / "in")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "lsms-rt").write_text(f'#!/bin/sh\nexec {sys.executable} -m lsms_rt.cli "$@"\n')
    (bin_folder / "lsms-rt").chmod(0o755)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = ["sh", str(DEPLOY / "folder.sh"), str(tmp_path / "in"), str(tmp_path / "out"), "the cyst in the liver"]
    assert subprocess.run(command, env=environment).returncode == 0
    assert {"segmentation.dcm", "report.dcm", "results.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
