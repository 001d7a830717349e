"""The tuned tiles that the package ships: every entry is a launch of a kernel that there is, and compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_checks import check_launches, tuned

from lsms_rt.kernels import tuned_tiles

FILES = sorted(tuned_tiles.FOLDER.glob("*.json"))
# The compute capability of a GPU that was tuned.
ARCHS = {"NVIDIA H200": "sm_90"}
# Every so many entries are compiled.
STEP = 9
COMPILE = """
import sys
from pathlib import Path
from kernel_checks import tuned
from lsms_rt.kernels import registry
from lsms_rt.kernels.aot import compile_launch, resource_violations
path, arch, step = sys.argv[1:]
rows = []
for module, shape, tiles in [entry for entry in tuned(Path(path)) if entry[2]][:: int(step)]:
    for launch in registry.launches(module, shape, lambda launch, at: launch(at, **tiles)):
        rows.append(compile_launch(launch, shape, arch).row())
print(len(rows), *resource_violations(rows), sep="\\n")
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_committed_entry_is_a_launch(path: Path) -> None:
    """The file is the one that its GPU and Triton read; a kernel's entry has keywords of its ``launch`` only."""
    record = json.loads(path.read_text())
    assert path.name == tuned_tiles.file_name(record["gpu"], record["triton"])
    assert tuned_tiles.read(record["gpu"], record["triton"]) == record["tiles"]
    assert all(entry["batch"] >= 1 for entry in record["tiles"].values())
    entries = tuned(path)
    assert entries
    for module, shape, tiles in entries:
        check_launches(module, shape, tiles)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sample_of_the_committed_tiles_compiles_within_the_limits(path: Path) -> None:
    """For that GPU, by this Triton: another one may need other resources than the one that was tuned."""
    tests = Path(__file__).parents[1]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tests.parent, tests / "helpers")))
    arch = ARCHS[json.loads(path.read_text())["gpu"]]
    command = [sys.executable, "-c", COMPILE, str(path), arch, str(STEP)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    count, *violations = done.stdout.splitlines()
    assert int(count) >= 4
    assert violations == []
