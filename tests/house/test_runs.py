"""What ``make test`` asks of pytest-xdist: tests of one group stay together, and a run ends whatever a test does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Two groups, so that both processes have tests when one of them ends.
TESTS = """
import os, signal, threading, time
import pytest

@pytest.mark.parametrize("n", range(8))
@pytest.mark.xdist_group("{group}")
def test_it(n):
    time.sleep(0.02)
    if n == 4 and "{group}" == "a":
        {does}
"""


def run(folder: Path, does: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run two files of tests with the options of ``make test``; ``does``: what the fifth test of the first does."""
    for group in "ab":
        (folder / f"test_{group}.py").write_text(TESTS.format(group=group, does=does))
    found = re.search(r"^PARALLEL \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    options = found[1].replace("-n logical", "-n 2").split()
    options += ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", *more]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_tests_of_one_group_stay_in_one_process(tmp_path: Path) -> None:
    """Else fixtures that take a minute are made twice."""
    done = run(tmp_path, "pass", "-vv")
    assert done.returncode == 0
    where = {tuple(found) for found in re.findall(r"\[(gw\d)\] .*PASSED .*test_(\w)\.py::", done.stdout)}
    assert {group for _, group in where} == {"a", "b"}
    assert len(where) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "said"),
    [("os.kill(os.getpid(), signal.SIGKILL)", ""), ("threading.Event().wait()", "Timeout (0:00:01)!")],
    ids=["killed", "hangs"],
)
def test_a_test_that_ends_its_process_or_hangs_ends_the_run(tmp_path: Path, does: str, said: str) -> None:
    """By its own, pytest-xdist 3.8 waits for ever after a process was killed."""
    done = run(tmp_path, does, "-o", "faulthandler_timeout=1")
    assert done.returncode == 1
    assert re.search(r"worker 'gw\d' crashed while running '.*test_a.py::test_it\[4\]", done.stdout)
    assert said in done.stderr
