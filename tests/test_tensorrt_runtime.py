"""The runtime around TensorRT, without TensorRT and without a GPU: refusals, buffers, order, pool.

The driver's own calls are in ``make gpu-check``; here a TensorRT and a GPU of NumPy stand in for them
(``fake_tensorrt``), and the real TensorRT for RTX where what is asked needs no GPU.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import FakeDevice, FakeLibrary

import lsms_rt
from lsms_rt import errors
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.backend import FEATURES
from lsms_rt.engine.manifest import Manifest, sha256, write_manifest
from lsms_rt.engine.onnxruntime import _providers
from lsms_rt.engine.opening import parse_device
from lsms_rt.engine.tensorrt import backend as backend_module
from lsms_rt.engine.tensorrt.backend import TensorRtBackend
from lsms_rt.engine.tensorrt.flavour import FLAVOURS, RTX, TENSORRT, Flavour, load, parse_version
from lsms_rt.engine.tensorrt.header import read_header
from lsms_rt.engine.tensorrt.lane import IDLE
from lsms_rt.engine.tensorrt.messages import Messages, explain
from lsms_rt.engine.tensorrt.plan import check_validity
from lsms_rt.engine.tensorrt.refuse import check_gpu, check_header, check_version
from lsms_rt.engine.tensorrt.tensors import TensorSpec, check_array, check_names, choose_profile
from lsms_rt.errors import DriverTooOld, EngineInvalid, EngineOtherGpu, EngineOtherVersion, NoGpu, ProfileExceeded
from lsms_rt.gpu import Driver, Gpu, look

T, C, SIZE, DEPTH = 32, 8, 64, 2
ORIN = Gpu("Orin", (8, 7), 32 << 30, True)
A10 = Gpu("NVIDIA A10", (8, 6), 24 << 30, False)
CUDA13 = Driver((13, 0), (A10,))


def plan_bytes(flavour: Flavour, version: tuple[int, ...], body: bytes, mask: int = 0b100) -> bytes:
    """A plan's header as the libraries write it, and something behind."""
    size = 64 + len(body)
    return struct.pack("<4sIQQ4B4sQ24x", flavour.tag, 0, 2, size, *version, flavour.tag, mask) + body


def text_compute(tokens: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    value = (tokens * mask).sum(1)[:, None, None, None]
    return {name: np.broadcast_to(value + i, (len(tokens), DEPTH, T, C)) for i, name in enumerate(FEATURES)}


def image_compute(image: np.ndarray, mask: np.ndarray, **features: np.ndarray) -> dict[str, np.ndarray]:
    words = sum(array.astype(np.float64).mean((1, 2, 3)) for array in features.values()) + mask.sum(1)
    return {"logits": image + words[:, None, None, None]}


ROWS = (-1, DEPTH, T, C)
TEXT_TENSORS = [("tokens", (-1, T), "INT64", True), ("mask", (-1, T), "FLOAT", True)]
TEXT_TENSORS += [(name, ROWS, "HALF", False) for name in FEATURES]
IMAGE_TENSORS = [("image", (-1, 1, SIZE, SIZE), "FLOAT", True), ("mask", (-1, T), "FLOAT", True)]
IMAGE_TENSORS += [(name, ROWS, "HALF", True) for name in FEATURES]
IMAGE_TENSORS += [("logits", (-1, 1, SIZE, SIZE), "FLOAT", False)]


def engine_directory(folder: Path, demo: Path, flavour: Flavour, **changes: Any) -> tuple[Any, dict[bytes, Any]]:
    """An engine directory of two plans that only ``FakeLibrary`` can read, and what they compute."""
    version = (10, 3, 0, 26) if flavour is TENSORRT else (1, 7, 1, 116)
    plans = {n: plan_bytes(flavour, version, n.encode()) for n in ("text.plan", "image.plan")}
    folder.mkdir(exist_ok=True)
    files = plans | {"tokenizer.json": (demo / "tokenizer.json").read_bytes()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = replace(
        open_directory(demo).manifest, backend=flavour.name, backend_version=".".join(map(str, version)),
        image_size=SIZE, max_batch=4, files={name: sha256(data) for name, data in files.items()},
        compute_capability="8.6", device_name=A10.name,
        target_capabilities=("sm_86",) if flavour is RTX else (), **changes,
    )  # fmt: skip
    write_manifest(folder, manifest)
    known = {plans["text.plan"]: (TEXT_TENSORS, text_compute), plans["image.plan"]: (IMAGE_TENSORS, image_compute)}
    return open_directory(folder), known


@pytest.fixture
def opened(tmp_path: Path, demo_engine: Path) -> Callable[..., tuple[TensorRtBackend, FakeLibrary, FakeDevice]]:
    def make(flavour: Flavour = TENSORRT, graphs: bool = True, capture: str = "") -> Any:
        directory, plans = engine_directory(tmp_path / "a.engine", demo_engine, flavour)
        device = FakeDevice(capture=capture)
        library = FakeLibrary(device, plans, directory.manifest.backend_version)
        backend = TensorRtBackend(
            directory, 0, graphs, driver=lambda: CUDA13, device=lambda *_: device, library=library
        )
        return backend, library, device

    return make


def sentence(backend: Any, seed: int) -> Any:
    tokens = np.random.default_rng(seed).integers(0, 9, (1, T))
    return backend.encode_text(tokens, np.ones((1, T), np.float32))


def wanted(images: np.ndarray, text: Any) -> np.ndarray:
    rows = {n: np.repeat(a, len(images), 0) for n, a in text.arrays.items()}
    return image_compute(images, np.repeat(text.mask, len(images), 0), **rows)["logits"][:, 0]


def some(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 1, SIZE, SIZE)).astype(np.float32)


# ------------------------------------------------------------------------------------------ lanes and series


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=list(FLAVOURS))
def test_answers_follow_images_and_sentences(opened: Any, flavour: Flavour, graphs: bool) -> None:
    backend, library, device = opened(flavour, graphs)
    texts = [sentence(backend, seed) for seed in (1, 2)]
    assert not np.array_equal(texts[0].arrays["keys1"], texts[1].arrays["keys1"])
    for seed, (batch, which) in enumerate([(1, 0), (1, 0), (3, 0), (1, 1), (3, 1), (3, 0), (1, 0)]):
        images = some(batch, seed)
        np.testing.assert_allclose(backend.segment(images, texts[which]), wanted(images, texts[which]), rtol=1e-5)
    assert library.contexts == 3  # of the text, and of batches 1 and 3
    assert library.runtime.engine_host_code_allowed is False
    ours = graphs and not flavour.own_graphs
    assert device.calls.count("captured") == (3 if ours else 0)
    assert ("launch" in device.calls) == ours
    if flavour is RTX:
        strategy = library.CudaGraphStrategy
        assert library.config.cuda_graph_strategy == (strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED)
    backend.close()
    assert all(buffer.freed for buffer in device.memory_map.values())
    with pytest.raises(EngineInvalid, match="has been closed"):
        backend.segment(some(1), texts[0])


def test_a_sentence_is_copied_once(opened: Any) -> None:
    backend, _, device = opened()
    text = sentence(backend, 1)
    backend.segment(some(2), text)
    device.calls.clear()
    backend.segment(some(2, 5), text)
    assert device.calls == ["upload", "launch", "download"]  # the image only


def test_the_next_batch_is_copied_before_this_one_is_awaited(opened: Any) -> None:
    backend, library, device = opened()
    text, log = sentence(backend, 1), device.calls
    parts = [some(2, 1), some(2, 2), some(2, 3), some(1, 4)]
    log.clear()

    def batches() -> Any:
        for number, images in enumerate(parts):
            log.append(f"batch {number}")
            yield images

    answers = []
    for logits in backend.segment_many(batches(), text):
        log.append("answer")
        answers.append(logits)
    for logits, images in zip(answers, parts, strict=True):
        assert len(logits) == len(images)
        np.testing.assert_allclose(logits, wanted(images, text), rtol=1e-5)
    order = [entry for entry in log if entry.startswith(("batch", "answer"))]
    assert order == ["batch 0", "batch 1", "answer", "batch 2", "answer", "batch 3", "answer", "answer"]
    assert library.contexts == 1 + 2  # text; two lanes of two in turn, also for the last slice


def test_a_series_that_is_left_or_fails_frees_its_lanes(opened: Any) -> None:
    backend, library, device = opened(graphs=False)
    text = sentence(backend, 1)
    left = backend.segment_many(iter([some(2)] * 5), text)
    next(left)
    left.close()
    library.says, library.execute = "out of memory", False
    with pytest.raises(errors.OutOfDeviceMemory, match=r"image\.plan did not run: out of memory"):
        list(backend.segment_many([some(2)], text))
    library.says, library.execute = "", True
    np.testing.assert_allclose(backend.segment(some(2), text), wanted(some(2), text), rtol=1e-5)
    backend.close()
    assert device.inside == 0
    assert all(buffer.freed for buffer in device.memory_map.values())


def test_a_capture_that_fails_is_said_and_the_lane_runs_on(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend, _, _ = opened(capture="cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    text = sentence(backend, 1)
    for seed in range(3):
        np.testing.assert_allclose(backend.segment(some(1, seed), text), wanted(some(1, seed), text), rtol=1e-5)
    said = [record.message for record in caplog.records if "without a CUDA graph" in record.message]
    assert len(said) == 2  # once a lane: of the text and of the image
    assert "STREAM_CAPTURE_UNSUPPORTED" in said[0]


def test_few_idle_lanes_are_kept(opened: Any) -> None:
    backend, _, device = opened(graphs=False)
    text = sentence(backend, 1)
    lanes = backend._lanes["image.plan"]
    for batch in (1, 2, 3, 4):
        backend.segment(some(batch), text)
    assert [lane.batch for lane in lanes._idle] == [2, 3, 4]
    with device.current():  # a second user of batch 4: another lane
        held = [lanes.take(4), lanes.take(4)]
        assert held[0] is not held[1]
        for lane in held:
            lanes.give(lane)
    assert [lane.batch for lane in lanes._idle] == [3, 4, 4]
    assert len(lanes._idle) == IDLE
    kept = {id(buffer) for lane in lanes._idle for buffer in lane._buffers.values()}
    images = [b for b in device.memory_map.values() if b.host.shape[1:] == (1, SIZE, SIZE)]
    assert all(buffer.freed != (id(buffer) in kept) for buffer in images)


def test_who_wants_more_lanes_than_there_may_be_waits(opened: Any) -> None:
    backend, _, device = opened()
    text = sentence(backend, 1)
    lanes = backend._lanes["image.plan"]
    lanes._most = 2
    with device.current():
        held = [lanes.take(1), lanes.take(1)]
        assert lanes.take(1, wait=False) is None
    answers: list[np.ndarray] = []
    waiting = threading.Thread(target=lambda: answers.append(backend.segment(some(1), text)))
    waiting.start()
    waiting.join(0.2)
    assert not answers
    with device.current():
        lanes.give(held[0])
    waiting.join(5)
    np.testing.assert_allclose(answers[0], wanted(some(1), text), rtol=1e-5)
    lanes._most = 1  # a series takes what there is: one lane, batch after batch
    with device.current():
        lanes.give(held[1])
        for lane in [lanes.take(1)]:
            lanes.drop(lane)
    found = list(backend.segment_many([some(2, 1), some(2, 2), some(2, 3)], text))
    for seed, logits in enumerate(found, 1):
        np.testing.assert_allclose(logits, wanted(some(2, seed), text), rtol=1e-5)


def test_a_series_runs_in_the_memory_of_one_lane(opened: Any) -> None:
    """The second lane does not fit: the first is used again. And what a lane that failed half-made had is freed."""
    backend, _, device = opened()
    text = sentence(backend, 1)
    device.buffers_left = len(IMAGE_TENSORS) + 3
    found = list(backend.segment_many([some(2, 1), some(2, 2), some(2, 3)], text))
    for seed, logits in enumerate(found, 1):
        np.testing.assert_allclose(logits, wanted(some(2, seed), text), rtol=1e-5)
    device.buffers_left = 10**6
    backend.close()
    assert all(buffer.freed for buffer in device.memory_map.values())


def test_a_closed_engine_holds_nothing(opened: Any) -> None:
    backend, _, _ = opened()
    backend.segment(some(1), sentence(backend, 1))
    held = weakref.ref(backend._plans["image.plan"])
    backend.close()
    assert held() is None
    backend.close()


def test_features_of_a_sentence_cannot_be_changed(opened: Any) -> None:
    """Lanes know them by identity: a change in place would not be seen.  The caller's own arrays are his."""
    backend, _, _ = opened()
    tokens, mask = np.ones((1, T), np.int64), np.ones((1, T), np.float32)
    first = backend.encode_text(tokens, mask)
    with pytest.raises(ValueError, match="read-only"):
        first.arrays["keys1"][:] = 0
    tokens[:], mask[0, 5:] = 2, 0
    second = backend.encode_text(tokens, mask)
    assert second.arrays["keys1"][0, 0, 0, 0] == 10
    assert first.mask.sum() == T


def test_many_threads(opened: Any) -> None:
    backend, _, _ = opened()
    texts = [sentence(backend, seed) for seed in range(3)]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for step in range(5):
            images, text = some(1 + (seed + step) % 3, seed * 10 + step), texts[(seed + step) % 3]
            found = backend.segment(images, text)
            if not np.allclose(found, wanted(images, text), rtol=1e-5):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_too_large_a_batch_and_too_little_memory(opened: Any) -> None:
    backend, _, device = opened()
    text = sentence(backend, 1)
    with pytest.raises(ProfileExceeded, match=r"image is \(5, 1, 64, 64\), the engine takes .* --max-batch"):
        backend.segment(some(5), text)
    backend.segment(some(1), text)
    device.free_bytes = 1000
    with pytest.raises(errors.OutOfDeviceMemory, match=r"needs 1 MiB .* has 0 MiB free"):
        backend.segment(some(2), text)
    assert backend._lanes["image.plan"]._idle == []  # what was idle was given up first
    device.integrated = True  # what a Jetson's driver calls free is less than what can be had
    backend.segment(some(2), text)


def test_no_context_says_why(opened: Any) -> None:
    backend, library, _ = opened()
    library.says = "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(errors.OutOfDeviceMemory, match="makes no context"):
        sentence(backend, 1)


def test_what_rtx_compiled_is_kept_for_the_next_process(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(backend_module.CACHE, str(tmp_path / "cache"))
    backend, library, _ = opened(RTX)
    assert library.caches == []
    backend.close()
    assert sorted(p.name for p in (tmp_path / "cache").rglob("*.cache")) == ["image.plan.cache", "text.plan.cache"]
    _, library, _ = opened(RTX)
    assert library.caches == [b"compiled", b"compiled"]
    folder = next((tmp_path / "cache").rglob("text.plan.cache")).parent
    assert folder.name == "nvidia-a10-1-7-1-116"  # another GPU's or version's is another file
    monkeypatch.setenv(backend_module.CACHE, "")
    _, library, _ = opened(RTX)
    assert library.caches == []


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
    with pytest.raises(EngineOtherVersion, match=f"built with TensorRT {built}, this machine has {here}.*build-engine"):
        check_version(asked, here, TENSORRT)


@pytest.mark.parametrize(
    ("changes", "gpu", "error"),
    [
        ({}, A10, None),
        ({}, ORIN, EngineOtherGpu),
        ({}, replace(A10, name="NVIDIA RTX A5000"), EngineOtherGpu),
        ({"device_name": "NVIDIA A100-SXM4-40GB"}, replace(A10, name="NVIDIA A100-SXM4-80GB"), None),
        ({"plan_options": {"platform": "Linux sparc64"}}, A10, EngineOtherGpu),
        ({"plan_options": {"hardware": "same-capability"}}, replace(A10, name="NVIDIA RTX A5000"), None),
        ({"plan_options": {"hardware": "same-capability"}}, ORIN, EngineOtherGpu),
        ({"plan_options": {"hardware": "ampere+"}}, ORIN, None),
        ({"plan_options": {"hardware": "ampere+"}}, replace(A10, capability=(7, 5)), EngineOtherGpu),
        ({"target_capabilities": ("sm_86", "sm_89")}, A10, None),
        ({"target_capabilities": ("sm_89",)}, A10, EngineOtherGpu),
    ],
)
def test_gpus(demo_engine: Path, changes: dict[str, Any], gpu: Gpu, error: type[Exception] | None) -> None:
    flavour = RTX if "target_capabilities" in changes else TENSORRT
    asked = manifest(demo_engine, backend=flavour.name, **changes)
    if error is None:
        assert check_gpu(asked, Driver((13, 0), (gpu,)), 0, flavour) is gpu
        return
    words = "built on Linux sparc64" if "platform" in asked.plan_options else f"this GPU is {gpu.name}"
    with pytest.raises(error, match=f"{words}.*lsms-rt build-engine .*--image-size 256 --max-batch [48]") as caught:
        check_gpu(asked, Driver((13, 0), (gpu,)), 0, flavour)
    assert ("--target sm_86" in str(caught.value)) == (flavour is RTX)


def test_a_gpu_that_rtx_does_not_know(demo_engine: Path) -> None:
    asked = manifest(demo_engine, backend="tensorrt-rtx", target_capabilities=("sm_86",))
    h100 = Gpu("NVIDIA H100", (9, 0), 80 << 30, False)
    with pytest.raises(EngineOtherGpu, match="does not run on sm_90: this GPU is NVIDIA H100.*take --backend tensorrt"):
        check_gpu(asked, Driver((13, 0), (h100,)), 0, RTX)


def test_no_gpu_and_an_old_driver(demo_engine: Path) -> None:
    asked = manifest(demo_engine)
    with pytest.raises(NoGpu, match="no NVIDIA driver.*--backend onnxruntime"):
        check_gpu(asked, Driver(problem="no NVIDIA driver (libcuda.so.1 is not to be found)"), 0, TENSORRT)
    with pytest.raises(NoGpu, match="it has 1, and number 1 was asked for"):
        check_gpu(asked, CUDA13, 1, TENSORRT)
    with pytest.raises(DriverTooOld, match=r"for CUDA 13\.0, this one is for CUDA 12\.6; update"):
        check_gpu(manifest(demo_engine, backend="tensorrt-rtx"), Driver((12, 6), (A10,)), 0, RTX)


def test_headers(demo_engine: Path) -> None:
    plan = plan_bytes(RTX, (1, 7, 1, 116), b"x" * 100, mask=0b1010)
    header = read_header(plan, "a.plan")
    assert (header.flavour, header.version, header.targets) == (RTX, (1, 7, 1, 116), ("sm_80", "sm_89"))
    for broken, words in (
        (plan[:-1], "has 163 bytes, its header says 164"), (plan[:40], "is no plan of TensorRT"),
        (b"GIF89a" + plan, "begins with b'GIF8'"), (b"", "has 0 bytes"),
    ):  # fmt: skip
        with pytest.raises(EngineInvalid, match=words):
            read_header(broken, "a.plan")
    with pytest.raises(EngineInvalid, match="is a plan of TensorRT for RTX, its manifest says TensorRT;"):
        check_header(manifest(demo_engine), header, TENSORRT, "a.plan")
    old = manifest(demo_engine, backend="tensorrt-rtx", backend_version="1.6.1.120")
    with pytest.raises(EngineInvalid, match=r"is of TensorRT for RTX 1\.7\.1\.116, its manifest says 1\.6\.1\.120"):
        check_header(old, header, RTX, "a.plan")
    asked = manifest(
        demo_engine, backend="tensorrt-rtx", backend_version="1.7.1.116", target_capabilities=("sm_80", "sm_120")
    )
    with pytest.raises(EngineInvalid, match="its manifest says also sm_120"):
        check_header(asked, header, RTX, "a.plan")


@pytest.mark.parametrize(
    ("said", "error"),
    [  # the first four were said by TensorRT for RTX 1.7.1; the others are from public reports of TensorRT 8 to 10
        ("IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at /_src/common/x.cpp:25 "
         "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)", DriverTooOld),
        ("Serialization (Serialization assertion plan.header.size == blobSize failed. In parsePlan at /_src/r.cpp:780)",
         EngineInvalid),
        ("The engine header does not conform to the expected format for TensorRT-RTX.", EngineInvalid),
        ("The engine has been created with TensorRT-RTX version 1.6, but the current runtime is TensorRT-RTX version "
         "1.7.1. Rebuild the engine", EngineOtherVersion),
        ("The engine plan file is not compatible with this version of TensorRT, expecting library version 10.3.0.26 "
         "got 10.0.1.6, please rebuild.", EngineOtherVersion),
        ("The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 8.9, please "
         "rebuild.", EngineOtherGpu),
        ("Requested amount of GPU memory (8 bytes) could not be allocated. OutOfMemory", errors.OutOfDeviceMemory),
        ("something new", EngineInvalid),
    ],
)  # fmt: skip
def test_what_the_libraries_say_is_understood(said: str, error: type[errors.LsmsError]) -> None:
    found = explain("the plan was refused", [said])
    assert type(found) is error
    assert str(found).startswith("the plan was refused: ")
    assert "/_src/" not in str(found)
    assert "it gave no reason" in str(explain("nothing", []))


def test_rtx_judges_a_header() -> None:
    library = FakeLibrary(FakeDevice(), {})

    class Runtime:
        found = (library.EngineValidity.INVALID, 0)

        def get_engine_validity(self, data: bytes) -> Any:
            return self.found

    runtime = Runtime()
    check_validity(library, runtime, b"x" * 100, "a.plan")  # invalid for a reason it does not name: loading will tell
    for found, error in (
        (1, EngineOtherVersion), (2, EngineOtherGpu), (4, DriverTooOld), (8, DriverTooOld),
        (16, errors.OutOfDeviceMemory), (32, EngineInvalid), (64, errors.EnvironmentProblem),
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
    assert messages.errors(mark) == ["new"]  # chatter does not push it out
    assert len(said) == 5000


def test_the_last_error_is_the_one_that_counts() -> None:
    tried = "Tactic Device request: 5000MB Available: 3000MB. Skipping tactic due to insufficient memory"
    assert type(explain("x", [tried, "Serialization assertion failed"])) is EngineInvalid
    assert type(explain("x", ["CUDA driver version is insufficient", "Unable to allocate memory"])) is DriverTooOld


def test_a_changed_plan_is_refused_before_a_library_sees_it(opened: Any, tmp_path: Path, demo_engine: Path) -> None:
    directory, plans = engine_directory(tmp_path / "b.engine", demo_engine, TENSORRT)
    data = bytearray((tmp_path / "b.engine/image.plan").read_bytes())
    data[-1] ^= 1
    (tmp_path / "b.engine/image.plan").write_bytes(bytes(data))
    library = FakeLibrary(FakeDevice(), plans)
    with pytest.raises(errors.EngineChanged, match=r"image\.plan has changed"):
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
        with pytest.raises(ProfileExceeded):
            choose_profile(profiles, {"x": shape})


def test_specs() -> None:
    spec = TensorSpec("x", (-1, 3), np.dtype(np.float16), True)
    assert (spec.at(5), spec.bytes_at(5)) == ((5, 3), 30)
    check_array(spec, np.zeros((5, 3), np.float16), 5)
    check_array(spec, np.zeros((1, 3), np.float16), 5)
    for array in (np.zeros((5, 3)), np.zeros((4, 3), np.float16), np.zeros((5, 4), np.float16)):
        with pytest.raises(EngineInvalid, match="x is "):
            check_array(spec, array, 5)
    check_names([spec], ["x"], [], "a.plan")
    with pytest.raises(EngineInvalid, match=r"a\.plan has inputs \['x'\], not \['y'\]"):
        check_names([spec], ["y"], [], "a.plan")
    with pytest.raises(EngineInvalid, match="only the first axis may be dynamic"):
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
    with pytest.raises(errors.EnvironmentProblem, match="has no CUDAExecutionProvider.*onnxruntime-gpu"):
        lsms_rt.Segmenter(demo_engine, device="cuda")


def test_onnxruntime_gpu_on_a_machine_without_one_runs_on_the_cpu() -> None:
    """What a package was compiled with says nothing of the machine."""
    library = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    if look().problem:
        assert _providers(library, None, 0) == ["CPUExecutionProvider"]
    assert _providers(library, "cuda", 1) == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]


def test_versions_are_read() -> None:
    assert parse_version("10.14.1.48.post1") == (10, 14, 1, 48)
    assert parse_version("dev") == ()


# ---------------------------------------------------------------------------------- TensorRT for RTX, for real


def test_rtxs_own_names_of_what_is_wrong() -> None:
    """The real enumeration, whose values are masks, and the real judgement of garbage."""
    library = pytest.importorskip("tensorrt_rtx_bindings")
    assert {n: int(v) for n, v in library.EngineInvalidityDiagnostics.__members__.items()} == {
        n: int(v) for n, v in FakeLibrary.EngineInvalidityDiagnostics.__members__.items()
    }
    from lsms_rt.engine.tensorrt.messages import logger_of

    with pytest.raises(EngineInvalid, match=r"a\.plan cannot run here: MALFORMED_ENGINE"):
        check_validity(library, library.Runtime(logger_of(library)), b"x" * 100, "a.plan")


def test_rtx_without_a_gpu_refuses_with_a_reason(demo_engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    if not look().problem:
        pytest.skip("this machine has a GPU")
    directory, _ = engine_directory(tmp_path / "a.engine", demo_engine, RTX)
    with pytest.raises(NoGpu, match="needs an NVIDIA GPU: no NVIDIA driver"):
        lsms_rt.Segmenter(directory.path)


def test_a_missing_library_says_how_to_get_it(demo_engine: Path, tmp_path: Path, monkeypatch: Any) -> None:
    directory, _ = engine_directory(tmp_path / "a.engine", demo_engine, TENSORRT)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(errors.EnvironmentProblem, match="TensorRT .*pip install 'lsms-rt\\[tensorrt\\]'.*JetPack"):
        lsms_rt.Segmenter(directory.path)


@pytest.mark.parametrize(("version", "words"), [("10.2.0", "10.3 and newer, below 12"), ("12.0.1", "below 12")])
def test_a_library_of_another_age(version: str, words: str, monkeypatch: Any) -> None:
    module = type("module", (), {"__version__": version})
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", module)
    with pytest.raises(errors.EnvironmentProblem, match=words):
        load(TENSORRT)
