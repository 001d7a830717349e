"""What the TensorRT runtime refuses, and how: without a GPU, with the real TensorRT for RTX where it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeDevice
from fake_engines import (
    A10,
    CUDA13,
    ORIN,
    engine_directory,
    plan_bytes,
)
from fake_tensorrt import FakeLibrary

import lsms_rt
from lsms_rt import errors
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.onnxruntime import choose_providers
from lsms_rt.engine.registry import parse_device
from lsms_rt.engine.tensorrt.backend import TensorRtBackend
from lsms_rt.engine.tensorrt.compatibility import check_gpu, check_header, check_version
from lsms_rt.engine.tensorrt.header import LENGTH, read_header
from lsms_rt.engine.tensorrt.messages import Messages, explain
from lsms_rt.engine.tensorrt.plan import check_validity
from lsms_rt.engine.tensorrt.tensors import TensorSpec, check_array, check_names, choose_profile
from lsms_rt.engine.tensorrt.variant import RTX, TENSORRT, load, parse_version
from lsms_rt.errors import (
    BatchSizeError,
    DriverTooOldError,
    EngineInvalidError,
    GpuNotFoundError,
    TensorRtVersionError,
    WrongGpuError,
)
from lsms_rt.machine.gpu import Driver, Gpu, query_driver

# ------------------------------------------------------------------------------------------------- refusals


def manifest(demo: Path, **changes: Any) -> Manifest:
    values = {
        "backend": "tensorrt",
        "backend_version": "10.3.0.26",
        "compute_capability": "8.6",
        "device_name": A10.name,
    }
    return replace(open_directory(demo).manifest, **(values | changes))


@pytest.mark.parametrize(
    ("built", "here", "compatible", "runs"),
    [
        ("10.3.0.26", "10.3.0.26", False, True), ("10.3.0.26", "10.3.0.27", False, False),
        ("10.3.0.26", "11.4.0.106", True, True), ("10.3.0.26", "12.0.0.1", True, False),
        ("10.3.0.26", "11.4.0.106", False, False), ("10.3.0.26", "10.16.1.11", True, True),
        ("10.16.1.11", "10.3.0.26", True, False),
    ],
)  # fmt: skip
def test_versions(demo_engine: Path, built: str, here: str, compatible: bool, runs: bool) -> None:
    asked = manifest(demo_engine, backend_version=built, plan_options={"version_compatible": compatible})
    if runs:
        check_version(asked, here, TENSORRT)
        return
    with pytest.raises(
        TensorRtVersionError, match=f"built with TensorRT {built}, this machine has {here}.*build-engine"
    ):
        check_version(asked, here, TENSORRT)


@pytest.mark.parametrize(
    ("changes", "gpu", "error"),
    [
        ({}, A10, None),
        ({}, ORIN, WrongGpuError),
        ({}, replace(A10, name="NVIDIA RTX A5000"), WrongGpuError),
        ({"device_name": "NVIDIA A100-SXM4-40GB"}, replace(A10, name="NVIDIA A100-SXM4-80GB"), None),
        ({"plan_options": {"platform": "Linux sparc64"}}, A10, WrongGpuError),
        ({"plan_options": {"hardware": "same-capability"}}, replace(A10, name="NVIDIA RTX A5000"), None),
        ({"plan_options": {"hardware": "same-capability"}}, ORIN, WrongGpuError),
        ({"plan_options": {"plugins": "sm_86"}}, A10, None),
        ({"plan_options": {"plugins": "sm_90"}}, A10, WrongGpuError),
        ({"plan_options": {"hardware": "ampere+"}}, ORIN, None),
        ({"plan_options": {"hardware": "ampere+"}}, replace(A10, capability=(7, 5)), WrongGpuError),
        ({"target_capabilities": ("sm_86", "sm_89")}, A10, None),
        ({"target_capabilities": ("sm_89",)}, A10, WrongGpuError),
    ],
)
def test_gpus(demo_engine: Path, changes: dict[str, Any], gpu: Gpu, error: type[Exception] | None) -> None:
    variant = RTX if "target_capabilities" in changes else TENSORRT
    asked = manifest(demo_engine, backend=variant.name, **changes)
    if error is None:
        assert check_gpu(asked, Driver((13, 0), (gpu,)), 0, variant) is gpu
        return
    words = "built on Linux sparc64" if "platform" in asked.plan_options else f"this GPU is {gpu.name}"
    if "plugins" in asked.plan_options:
        words = f"holds kernels compiled for sm_90, {words}"
    with pytest.raises(error, match=f"{words}.*lsms-rt build-engine .*--image-size 256 --max-batch [48]") as caught:
        check_gpu(asked, Driver((13, 0), (gpu,)), 0, variant)
    assert ("--target sm_86" in str(caught.value)) == (variant is RTX)


def test_a_gpu_that_rtx_does_not_know(demo_engine: Path) -> None:
    asked = manifest(demo_engine, backend="tensorrt-rtx", target_capabilities=("sm_86",))
    h100 = Gpu("NVIDIA H100", (9, 0), 80 << 30, False)
    with pytest.raises(WrongGpuError, match="does not support sm_90: this GPU is NVIDIA H100.*use --backend tensorrt"):
        check_gpu(asked, Driver((13, 0), (h100,)), 0, RTX)


def test_no_gpu_and_an_old_driver(demo_engine: Path) -> None:
    asked = manifest(demo_engine)
    with pytest.raises(GpuNotFoundError, match="no NVIDIA driver.*--backend onnxruntime"):
        check_gpu(asked, Driver(problem="no NVIDIA driver (libcuda.so.1 was not found)"), 0, TENSORRT)
    with pytest.raises(GpuNotFoundError, match="there are 1, and number 1 .from 0. was requested"):
        check_gpu(asked, CUDA13, 1, TENSORRT)
    with pytest.raises(DriverTooOldError, match=r"for CUDA 13\.0, this one supports CUDA 12\.6; update"):
        check_gpu(manifest(demo_engine, backend="tensorrt-rtx"), Driver((12, 6), (A10,)), 0, RTX)


def test_headers(demo_engine: Path) -> None:
    plan = plan_bytes(RTX, (1, 7, 1, 116), b"x" * 100, mask=0b1010)
    header = read_header(plan, "a.plan")
    assert (header.variant, header.version, header.targets) == (RTX, (1, 7, 1, 116), ("sm_80", "sm_89"))
    for broken, words in (
        (plan[:-1], "has 163 bytes, and 164 according to its header"), (plan[:40], "is not a TensorRT plan"),
        (b"GIF89a" + plan, "begins with b'GIF8'"), (b"", "has 0 bytes"),
    ):  # fmt: skip
        with pytest.raises(EngineInvalidError, match=words):
            read_header(broken, "a.plan")
    with pytest.raises(EngineInvalidError, match="is a plan of TensorRT for RTX, its manifest says TensorRT;"):
        check_header(manifest(demo_engine), header, TENSORRT, "a.plan")
    old = manifest(demo_engine, backend="tensorrt-rtx", backend_version="1.6.1.120")
    with pytest.raises(
        EngineInvalidError, match=r"is of TensorRT for RTX 1\.7\.1\.116, its manifest says 1\.6\.1\.120"
    ):
        check_header(old, header, RTX, "a.plan")
    asked = manifest(
        demo_engine, backend="tensorrt-rtx", backend_version="1.7.1.116", target_capabilities=("sm_80", "sm_120")
    )
    with pytest.raises(EngineInvalidError, match="its manifest also lists sm_120"):
        check_header(asked, header, RTX, "a.plan")


@pytest.mark.parametrize(
    ("said", "error"),
    # TensorRT for RTX 1.7.1 printed the first four; the others are from public reports of TensorRT 8 to 10.
    [
        ("IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at /_src/common/x.cpp:25 "
         "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)", DriverTooOldError),
        ("Serialization (Serialization assertion plan.header.size == blobSize failed. In parsePlan at /_src/r.cpp:780)",
         EngineInvalidError),
        ("The engine header does not conform to the expected format for TensorRT-RTX.", EngineInvalidError),
        ("The engine has been created with TensorRT-RTX version 1.6, but the current runtime is TensorRT-RTX version "
         "1.7.1. Rebuild the engine", TensorRtVersionError),
        ("The engine plan file is not compatible with this version of TensorRT, expecting library version 10.3.0.26 "
         "got 10.0.1.6, please rebuild.", TensorRtVersionError),
        ("The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 8.9, please "
         "rebuild.", WrongGpuError),
        ("Requested amount of GPU memory (8 bytes) could not be allocated. OutOfMemory", errors.OutOfDeviceMemoryError),
        ("something new", EngineInvalidError),
    ],
)  # fmt: skip
def test_what_the_libraries_say_is_understood(said: str, error: type[errors.LsmsError]) -> None:
    found = explain("the plan was refused", [said])
    assert type(found) is error
    assert str(found).startswith("the plan was refused: ")
    assert "/_src/" not in str(found)
    assert "the library logged no reason" in str(explain("nothing", []))


def test_rtx_judges_a_header() -> None:
    library = FakeLibrary(FakeDevice(), {})

    class Runtime:
        engine_header_size, found = 64, (library.EngineValidity.INVALID, 0)

        def get_engine_validity(self, data: bytes) -> Any:
            return self.found

    runtime = Runtime()
    # Invalid for a reason it does not name: loading will tell.
    check_validity(library, runtime, b"x" * 100, "a.plan")
    for found, error in (
        (1, TensorRtVersionError), (2, WrongGpuError), (4, DriverTooOldError), (8, DriverTooOldError),
        (16, errors.OutOfDeviceMemoryError), (32, EngineInvalidError), (64, errors.MachineError),
    ):  # fmt: skip
        runtime.found = (library.EngineValidity.INVALID, found)
        with pytest.raises(error, match=r"a\.plan cannot run here"):
            check_validity(library, runtime, b"x" * 100, "a.plan")


def test_messages_of_one_failure_are_not_those_of_another() -> None:
    messages = Messages()
    messages.add("ERROR", "old")
    mark = messages.mark()
    messages.add("INFO", "chatter")
    messages.add("INTERNAL_ERROR", "new")
    with messages.recording() as said:
        for number in range(5000):
            messages.add("VERBOSE", str(number))
    # Chatter does not push it out.
    assert messages.errors(mark) == ["new"]
    assert len(said) == 5000


def test_the_last_error_is_the_one_that_counts() -> None:
    tried = "Tactic Device request: 5000MB Available: 3000MB. Skipping tactic due to insufficient memory"
    assert type(explain("x", [tried, "Serialization assertion failed"])) is EngineInvalidError
    assert type(explain("x", ["CUDA driver version is insufficient", "Unable to allocate memory"])) is DriverTooOldError


def test_a_changed_plan_is_refused_before_a_library_sees_it(tmp_path: Path, demo_engine: Path) -> None:
    directory, plans = engine_directory(tmp_path / "b.engine", demo_engine, TENSORRT)
    data = bytearray((tmp_path / "b.engine/image.plan").read_bytes())
    data[-1] ^= 1
    (tmp_path / "b.engine/image.plan").write_bytes(bytes(data))
    library = FakeLibrary(FakeDevice(), plans)
    with pytest.raises(errors.EngineDigestError, match=r"image\.plan has changed"):
        TensorRtBackend(directory, driver=lambda: CUDA13, library=library)
    assert not hasattr(library, "logger")


# ------------------------------------------------------------------------------------- shapes, profiles, names


def test_the_profile_that_holds_a_batch() -> None:
    def profile(low: int, best: int, high: int) -> Any:
        return {"x": ((low, 3), (best, 3), (high, 3))}

    profiles = [profile(1, 1, 1), profile(1, 4, 8), profile(4, 16, 16)]
    for batch, index in ((1, 0), (2, 1), (8, 1), (12, 2), (16, 2)):
        assert choose_profile(profiles, {"x": (batch, 3)}) == index
    for shape in ((17, 3), (0, 3), (2, 4), (2, 3, 1)):
        with pytest.raises(BatchSizeError):
            choose_profile(profiles, {"x": shape})


def test_specs() -> None:
    spec = TensorSpec("x", (-1, 3), np.dtype(np.float16), True)
    assert (spec.at(5), spec.bytes_at(5)) == ((5, 3), 30)
    check_array(spec, np.zeros((5, 3), np.float16), 5)
    check_array(spec, np.zeros((1, 3), np.float16), 5)
    for array in (np.zeros((5, 3)), np.zeros((4, 3), np.float16), np.zeros((5, 4), np.float16)):
        with pytest.raises(EngineInvalidError, match="x is "):
            check_array(spec, array, 5)
    check_names([spec], ["x"], [], "a.plan")
    with pytest.raises(EngineInvalidError, match=r"a\.plan has inputs \['x'\], not \['y'\]"):
        check_names([spec], ["y"], [], "a.plan")
    with pytest.raises(EngineInvalidError, match="only the first axis may be dynamic"):
        check_names([replace(spec, shape=(-1, -1))], ["x"], [], "a.plan")


def test_devices() -> None:
    assert [parse_device(d) for d in (None, "cpu", "cuda", "cuda:2")] == [
        (None, 0), ("cpu", 0), ("cuda", 0), ("cuda", 2)
    ]  # fmt: skip
    for wrong in ("gpu", "cuda:x", "", "cuda:-1", "cpu:3", "cuda:", 0):
        with pytest.raises(errors.InputError, match="give cpu, cuda"):
            parse_device(wrong)


def test_onnxruntime_has_the_device_or_says_how_to_get_it(demo_engine: Path) -> None:
    for device in ("cpu", None):
        backend = open_backend(open_directory(demo_engine), device=device)
        assert backend.providers == ["CPUExecutionProvider"]  # type: ignore[attr-defined]
    with pytest.raises(errors.MachineError, match="has no CUDAExecutionProvider.*onnxruntime-gpu"):
        lsms_rt.Segmenter(demo_engine, device="cuda")


def test_onnxruntime_gpu_on_a_machine_without_one_runs_on_the_cpu() -> None:
    """What a package was compiled with says nothing of the machine."""
    library = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    if query_driver().problem:
        assert choose_providers(library, None, 0) == ["CPUExecutionProvider"]
    # TF32 is off
    first = ("CUDAExecutionProvider", {"device_id": 1, "use_tf32": 0})
    assert choose_providers(library, "cuda", 1) == [first, "CPUExecutionProvider"]


def test_versions_are_read() -> None:
    assert parse_version("10.14.1.48.post1") == (10, 14, 1, 48)
    assert parse_version("dev") == ()


# ---------------------------------------------------------------------------------- TensorRT for RTX, for real


def test_rtxs_own_names_of_what_is_wrong() -> None:
    """The real enumeration, whose values are masks, and the real judgment of garbage."""
    library = pytest.importorskip("tensorrt_rtx_bindings")
    assert {n: int(v) for n, v in library.EngineInvalidityDiagnostics.__members__.items()} == {
        n: int(v) for n, v in FakeLibrary.EngineInvalidityDiagnostics.__members__.items()
    }
    from lsms_rt.engine.tensorrt.messages import logger_of

    with pytest.raises(EngineInvalidError, match=r"a\.plan cannot run here: MALFORMED_ENGINE"):
        check_validity(library, library.Runtime(logger_of(library)), b"x" * 100, "a.plan")
    # Our own reader of headers takes as many.
    assert library.Runtime(logger_of(library)).engine_header_size == LENGTH


def test_rtx_without_a_gpu_refuses_with_a_reason(demo_engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    if not query_driver().problem:
        pytest.skip("this machine has a GPU")
    directory, _ = engine_directory(tmp_path / "a.engine", demo_engine, RTX)
    with pytest.raises(GpuNotFoundError, match="needs an NVIDIA GPU: no NVIDIA driver"):
        lsms_rt.Segmenter(directory.path)


def test_a_missing_library_says_how_to_get_it(demo_engine: Path, tmp_path: Path, monkeypatch: Any) -> None:
    directory, _ = engine_directory(tmp_path / "a.engine", demo_engine, TENSORRT)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(errors.MachineError, match="TensorRT .*pip install 'lsms-rt\\[tensorrt\\]'.*JetPack"):
        lsms_rt.Segmenter(directory.path)


@pytest.mark.parametrize(("version", "words"), [("10.2.0", "10.3 and newer, below 12"), ("12.0.1", "below 12")])
def test_a_library_of_another_age(version: str, words: str, monkeypatch: Any) -> None:
    module = type("module", (), {"__version__": version})
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", module)
    with pytest.raises(errors.MachineError, match=words):
        load(TENSORRT)
