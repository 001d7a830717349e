"""Every name of TensorRT's API that our code uses exists in every version that we say we run.

Our modules call the same object by the same name everywhere, so a variable's name tells its class.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsms_rt.engine.tensorrt.variant import HARDWARE

ROOT = Path(__file__).parents[2]
API = Path(__file__).parent / "tensorrt_api"
FILES = [ROOT / "export/tensorrt.py", *sorted((ROOT / "lsms_rt/engine/tensorrt").glob("*.py"))]
# A variable or attribute of ours -> TensorRT's class.
VARIABLES = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "profile": "IOptimizationProfile",
    "config": "IBuilderConfig", "_config": "IRuntimeConfig", "cache": "ITimingCache", "_cache": "IRuntimeCache",
    "engine": "ICudaEngine", "_context": "IExecutionContext", "context": "IExecutionContext", "tensor": "ITensor",
    "runtime": "Runtime", "_runtime": "Runtime", "inspector": "EngineInspector", "mistake": "ParserError",
}  # fmt: skip
# What only TensorRT for RTX has; our code asks the variant, or the object, before it uses them.
RTX_ONLY = {
    "ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy", "EngineValidity",
    "EngineInvalidityDiagnostics",
    "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability", "Runtime.get_engine_validity",
    "ICudaEngine.create_runtime_config", "IRuntimeConfig.cuda_graph_strategy", "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.set_runtime_cache", "IRuntimeCache.serialize", "IRuntimeCache.deserialize",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy", "IExecutionContext.is_stream_capturable",
    "IRuntimeConfig.set_execution_context_allocation_strategy", "Runtime.engine_header_size",
}  # fmt: skip
# Our own objects.
NOT_TENSORRT = {"engine.path", "engine.manifest", "engine.read", "engine.digest", "profile.append"}


def uses(path: Path) -> Iterator[str]:
    """``Class.name`` for members, and the names that are taken from the module itself, enumerators included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else None
        if name is None or f"{name}.{node.attr}" in NOT_TENSORRT or node.attr.startswith("__"):
            continue
        if name == "library":
            yield node.attr
        elif isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "library":
            yield f"{name}.{node.attr}"
        elif name in VARIABLES:
            yield f"{VARIABLES[name]}.{node.attr}"


USED = sorted({use for path in FILES for use in uses(path)})


def test_the_search_finds_what_we_know_is_there() -> None:
    assert len(USED) > 45
    assert {
        "Builder", "Builder.build_serialized_network", "IExecutionContext.execute_async_v3",
        "BuilderFlag.VERSION_COMPATIBLE", "ICudaEngine.get_tensor_profile_shape", "Runtime.get_engine_validity",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    } <= set(USED)  # fmt: skip


@pytest.mark.parametrize("version", ["10.3.0", "10.15.1", "10.16.1", "11.4.0"])
def test_tensorrt_has_every_name(version: str) -> None:
    known = json.loads((API / f"{version}.json").read_text())
    common = [use for use in USED if not {use, use.partition(".")[0]} & RTX_ONLY]
    missing = [use for use in common if not _has(known, use)]
    assert not missing, f"TensorRT {version} has no {missing}"


def test_tensorrt_for_rtx_has_every_name() -> None:
    known = json.loads((API / "rtx-1.7.1.json").read_text())
    assert [use for use in USED if not _has(known, use)] == []
    assert set(USED) >= RTX_ONLY - {"EngineInvalidityDiagnostics"}
    assert [use for use in RTX_ONLY if not _has(known, use)] == []


def test_the_list_of_rtx_is_that_of_the_installed_one() -> None:
    """The dump is of the library itself, and nothing else."""
    library = pytest.importorskip("tensorrt_rtx_bindings")
    sys.path.insert(0, str(API))
    try:
        import dump
    finally:
        sys.path.remove(str(API))
    assert library.__version__.startswith("1.7.1")
    assert dump.names(library) == json.loads((API / "rtx-1.7.1.json").read_text())


def test_levels_of_hardware_compatibility() -> None:
    """Asked for by name at run time, which the search cannot see."""
    for version, missing in (("10.3.0", {"SAME_COMPUTE_CAPABILITY"}), ("10.16.1", set()), ("11.4.0", set())):
        known = json.loads((API / f"{version}.json").read_text())["HardwareCompatibilityLevel"]
        assert set(HARDWARE.values()) - set(known) == missing


def _has(known: dict[str, list[str]], use: str) -> bool:
    owner, _, name = use.partition(".")
    return owner in known and (not name or name in known[owner])
