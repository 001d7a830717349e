"""A run of the tests ends, and names the test, whatever a test does to its process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Two files, so that both processes have tests when one of them ends.
TESTS = """
import os, signal, threading, time
import pytest

@pytest.mark.parametrize("n", range(10))
@pytest.mark.xdist_group("{group}")
def test_it(n):
    time.sleep(0.02)
    if n == 4 and "{group}" == "a":
        {fault}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [("os.kill(os.getpid(), signal.SIGKILL)", ""), ("threading.Event().wait()", "Timeout (0:00:01)!")],
    ids=["killed", "hangs"],
)
def test_a_test_that_ends_its_process_or_hangs_ends_the_run(tmp_path: Path, fault: str, said: str) -> None:
    """With the options of ``make test``: by its own, pytest-xdist 3.8 waits for ever after a process was killed."""
    for group in "ab":
        (tmp_path / f"test_{group}.py").write_text(TESTS.format(group=group, fault=fault))
    found = re.search(r"^PARALLEL \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    options = found[1].replace("-n logical", "-n 2").split()
    options += ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-o", "faulthandler_timeout=1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.search(r"worker 'gw\d' crashed while running '.*test_a.py::test_it\[4\]", done.stdout)
    assert said in done.stderr
