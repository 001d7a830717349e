"""ONNX Runtime keeps an identifier and reports to its maker, unless it is told not to before it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PREDICT = "import lsms_rt; lsms_rt.Segmenter(lsms_rt.demo_engine(), threads=1).close()"


def written(code: str, folder: Path, **more: str) -> list[str]:
    """Run code as on a user's machine; return what it has written to the folders of the user."""
    kept = {name: text for name, text in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    folders = {"HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run([sys.executable, "-c", code], env=kept | folders | more, check=True, timeout=120)
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_an_engine_leaves_nothing_in_the_folders_of_the_user(tmp_path: Path) -> None:
    assert written(PREDICT, tmp_path) == []


@pytest.mark.parametrize("said", ["0", "1"])
def test_who_has_decided_is_not_overruled(tmp_path: Path, said: str) -> None:
    code = f"import os, lsms_rt; assert os.environ['ORT_DISABLE_TELEMETRY'] == {said!r}"
    assert written(code, tmp_path, ORT_DISABLE_TELEMETRY=said) == []
