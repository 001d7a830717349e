"""Cross-compilation: the limits of plugins, and no drift from the committed report.

The compiler runs in separate processes, since the kernels of this one are interpreted.  One architecture is compiled
here; the committed report, which must match it, is checked for all of them.  LSMS_RT_TEST_ARCHS="sm_80 sm_87 sm_90
sm_120" compiles more, and ``make aot`` all.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.kernels import aot, ptx, registry
from lsms_rt.kernels.shape import Shape, shapes_around, stage_shapes
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS

REPORT = Path(__file__).parents[2] / "bench/results/aot/kernels.json"
# sm_87 is one of the two architectures on which kernels spill first.
ARCHS = tuple(os.environ.get("LSMS_RT_TEST_ARCHS", "sm_87").split())
KEY = ("kernel", "shape", "arch")
# Of engines with a vocabulary of their own, and with BERT's.
TOKENS = (OWN_TOKENS, MAX_TOKENS)


def compile_in_another_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "lsms_rt.kernels.aot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all kernels that plugins use, for all stages of all presets at 512x512, compiled now."""
    folder = tmp_path_factory.mktemp("aot")
    done = compile_in_another_process("--arch", *ARCHS, "--report", str(folder / "kernels.json"), "-o", str(folder))
    assert done.returncode == 0, done.stderr
    assert "depthwise_kernel" in done.stdout
    return folder


@pytest.fixture(scope="module")
def rows(compiled: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    return {
        tuple(row[name] for name in KEY): row for row in json.loads((compiled / "kernels.json").read_text())["rows"]
    }


def check_limits(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        assert row["spills"] == row["stack"] == 0, row
        # fp32 kernels are not plugins.
        assert row["shared"] <= (48 if row["shape"].endswith("fp16") else 99) * 1024, row
        assert row["registers"] <= 255, row


@pytest.mark.slow
def test_no_plugin_kernel_spills_or_asks_for_more_shared_memory(rows: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """The command assembles every kernel without Triton's hidden parameters, or fails."""
    kinds = [(preset, tokens) for preset in ("tiny", "base") for tokens in TOKENS]
    shapes = dict.fromkeys(s for p, t in kinds for s in (*stage_shapes(p, 512, tokens=t), *shapes_around(p, 512)))
    assert len(rows) == len(ARCHS) * sum(len(registry.modules_at(shape)) for shape in shapes)
    check_limits(rows.values())


@pytest.mark.slow
def test_the_committed_report_has_not_drifted(rows: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """``make aot`` makes the report.  Another version of Triton allocates other registers and needs a new one."""
    import triton

    committed = json.loads(REPORT.read_text())
    assert committed["triton"] == triton.__version__, (
        "this is not the report's version of Triton: run make aot, and check the difference"
    )
    found = {tuple(row[name] for name in KEY): row for row in committed["rows"]}
    assert {row["arch"] for row in committed["rows"]} == set(aot.TARGETS)
    for key, row in rows.items():
        assert found[key] == row, "the kernels have changed: run make aot, and check the difference"


def test_the_report_has_all_kernels_within_the_limits() -> None:
    """All architectures, and both types: fp32 kernels are not plugins, but must not spill either."""
    committed = json.loads(REPORT.read_text())["rows"]
    check_limits(committed)
    kinds = itertools.product(("tiny", "base"), ("fp16", "fp32"), TOKENS)
    shapes = dict.fromkeys(
        s for p, dtype, tokens in kinds for s in (*stage_shapes(p, 512, dtype, tokens), *shapes_around(p, 512, dtype))
    )
    launches = [(launch.kernel.__name__, shape.key) for shape in shapes for module in registry.modules_at(shape)
                for launch in registry.launches(module, shape)]  # fmt: skip
    assert {tuple(row[name] for name in KEY) for row in committed} == {
        (*launch, arch) for launch in launches for arch in aot.TARGETS
    }
    assert aot.resource_violations(committed) == []
    assert {row["shape"].rpartition("_")[2] for row in committed} == {"fp16", "fp32"}
    assert {row["target"] for row in committed} >= {"sm_80", "sm_87", "sm_90a", "sm_120a"}


@pytest.mark.slow
def test_binaries_can_be_loaded_without_triton(compiled: Path) -> None:
    shape = stage_shapes("tiny", 512, tokens=64)[0]
    folder = compiled / ARCHS[0] / shape.key
    names = sorted(path.stem for path in folder.glob("*.ptx"))
    assert names == sorted(f"{registry.name(m)}_kernel" for m in registry.modules_at(shape))
    for name in names:
        data = json.loads((folder / f"{name}.json").read_text())
        text = (folder / f"{name}.ptx").read_text()
        entry = re.search(r"\.entry (\w+)\((.*?)\n\)", text, re.DOTALL)
        assert entry is not None
        assert entry.group(1) == data["entry"] == name
        assert len(re.findall(r"\.param", entry.group(2))) == len(data["arguments"])
        # CUDA 12.5 and JetPack 6 understand it.
        assert ".version 8.5" in text
        # On sm_90 and sm_120 the target has a letter more.
        assert data["target"].startswith(ARCHS[0]) and data["arch"] == ARCHS[0]
        assert data["block"] % 32 == 0
        assert (folder / f"{name}.cubin").read_bytes()[:4] == b"\x7fELF"


def test_interpreted_kernels_cannot_be_compiled() -> None:
    shape = Shape(32, 16, 16)
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        aot.compile_launch(registry.mix.launch(shape), shape, "sm_80")


# PTX

HEAD = ".version 8.5\n.target sm_90a\n.address_size 64\n"
ENTRY = """.visible .entry mix_kernel(
\t.param .u64 .ptr .global .align 1 mix_kernel_param_0,
\t.param .u64 .ptr .global .align 1 mix_kernel_param_1,
\t.param .u64 .ptr .global .align 1 mix_kernel_param_2,
\t.param .u64 .ptr .global .align 1 mix_kernel_param_3
)
.reqntid 128
{
\tld.param.b64 %rd1, [mix_kernel_param_0];
\tld.param.b64 %rd2, [mix_kernel_param_1];
\tret;
}
"""


def test_hidden_parameters_are_removed() -> None:
    text = ptx.strip_hidden_parameters(HEAD + ENTRY, 2)
    assert "mix_kernel_param_1\n)" in text
    assert "param_2" not in text
    assert text.endswith(ENTRY[ENTRY.index(".reqntid") :])
    assert ptx.target_of(text) == "sm_90a"


def test_hidden_parameters_in_use_are_noticed() -> None:
    used = ENTRY.replace("ret;", "ld.param.b64 %rd3, [mix_kernel_param_2];\n\tret;")
    with pytest.raises(ValueError, match=r"uses its hidden parameter mix_kernel_param_2"):
        ptx.strip_hidden_parameters(HEAD + used, 2)
    with pytest.raises(ValueError, match="4 parameters, not 3 and 2 hidden"):
        ptx.strip_hidden_parameters(HEAD + ENTRY, 3)
    with pytest.raises(ValueError, match="no .visible .entry"):
        ptx.strip_hidden_parameters(HEAD, 1)


def test_resource_violations_are_listed() -> None:
    row = {"kernel": "k", "shape": "s_fp16", "arch": "sm_80", "spills": 0, "stack": 0, "shared": 49152}
    assert aot.resource_violations([row, row | {"shape": "s_fp32", "shared": 99 * 1024}]) == []
    assert len(aot.resource_violations([row | {"shape": "s_fp32", "shared": 100 * 1024}])) == 1
    for change in ({"spills": 4}, {"stack": 8}, {"shared": 49160}):
        assert len(aot.resource_violations([row | change])) == 1
