"""The tuned tiles that the package ships: every entry is a launch of a kernel that there is, and compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_checks import check_launches, tuned

from lsms_rt.kernels import registry, tuned_tiles
from lsms_rt.kernels.shape import shapes_around

FILES = sorted(tuned_tiles.FOLDER.glob("*.json"))
# GPUs that were tuned: the architecture, and the shared memory that Triton's launcher may ask for in bytes.
GPUS = {"NVIDIA H200": ("sm_90", 227 * 1024)}
# Every so many entries are compiled.
STEP = 9
COMPILE = """
import sys
from pathlib import Path
from kernel_checks import tuned
from lsms_rt.kernels import registry
from lsms_rt.kernels.aot import SHARED_LIMITS, compile_launch
path, arch, step, shared = sys.argv[1:]
rows, wrong = [], []
for module, shape, tiles in [entry for entry in tuned(Path(path)) if entry[2]][:: int(step)]:
    for launch in registry.launches(module, shape, lambda launch, at: launch(at, **tiles)):
        rows.append(compile_launch(launch, shape, arch).row())
        is_plugin = shape.dtype == "fp16" and module in registry.FP16_MODULES
        limit = SHARED_LIMITS["fp16"] if is_plugin else int(shared)
        if rows[-1]["spills"] or rows[-1]["stack"] or rows[-1]["shared"] > limit:
            wrong.append(rows[-1])
print(len(rows), *wrong, sep="\\n")
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
    arch, shared = GPUS[json.loads(path.read_text())["gpu"]]
    command = [sys.executable, "-c", COMPILE, str(path), arch, str(STEP), str(shared)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    count, *wrong = done.stdout.splitlines()
    assert int(count) >= 4
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_committed_entry_is_found_and_launched_on_its_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way that a forward pass takes: a check that refused every 1x1's tiles was seen on an H200 only."""
    record = json.loads(path.read_text())
    monkeypatch.setattr(tuned_tiles, "_device", lambda: (record["gpu"], record["triton"]))
    for module, shape, tiles in tuned(path):
        assert tuned_tiles.planned(module.launch, shape) == module.launch(shape, **tiles)


def test_tiles_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a launch passes its keywords on."""
    shape = shapes_around("tiny", 512)[0]
    module = next(module for module in registry.modules_at(shape) if registry.name(module) == "inner")
    tuned_tiles.write(tmp_path, "A GPU", "3.6.0", 1, {tuned_tiles.key(module.launch, shape): {"n": 32, "waves": 2}})
    monkeypatch.setenv(tuned_tiles.VARIABLE, str(tmp_path))
    monkeypatch.setattr(tuned_tiles, "_device", lambda: ("A GPU", "3.6.0"))
    with pytest.raises(ValueError, match="inner/c32_p16384_fp16 are not for this version .*'waves'.*tune again"):
        tuned_tiles.planned(module.launch, shape)
