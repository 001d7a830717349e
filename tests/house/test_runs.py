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
    assert done.returncode == 0, done.stdout + done.stderr
    where = {tuple(found) for found in re.findall(r"\[(gw\d)\] .*PASSED .*test_(\w)\.py::", done.stdout)}
    assert {group for _, group in where} == {"a", "b"}
    assert len(where) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "said", "options"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "", []),
        ("threading.Event().wait()", "Timeout (0:00:05)!", ["-o", "faulthandler_timeout=5"]),
    ],
    ids=["killed", "hangs"],
)
def test_a_test_that_ends_its_process_or_hangs_ends_the_run(
    tmp_path: Path, does: str, said: str, options: list[str]
) -> None:
    """On its own, pytest-xdist 3.8 starts another process, and may then wait for ever."""
    done = run(tmp_path, does, *options)
    everything = done.stdout + done.stderr
    assert done.returncode == 1, everything
    assert re.search(r"worker 'gw\d' crashed while running '.*test_a.py::test_it\[4\]", done.stdout), everything
    assert said in done.stderr, everything
