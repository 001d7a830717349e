"""Lanes, series, graphs and memory of the TensorRT runtime, over a TensorRT and a GPU of NumPy (``fake_cuda``).

The driver's own calls are in ``make gpu-check``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeBuffer, FakeDevice, FakeMemory
from fake_engines import (
    A10,
    CUDA13,
    IMAGE_TENSORS,
    SIZE,
    T,
    engine_directory,
    image_compute,
)
from fake_tensorrt import SCRATCH, FakeLibrary

from lsms_rt import errors
from lsms_rt.bench.device_times import event_times
from lsms_rt.bench.timing import Effort
from lsms_rt.engine.tensorrt.backend import TensorRtBackend
from lsms_rt.engine.tensorrt.pool import MAX_IDLE
from lsms_rt.engine.tensorrt.variant import RTX, TENSORRT, VARIANTS, TensorRtVariant
from lsms_rt.errors import BatchSizeError, EngineInvalidError
from lsms_rt.machine.cache import CACHE
from lsms_rt.machine.gpu import Driver


@pytest.fixture
def opened(tmp_path: Path, demo_engine: Path) -> Callable[..., tuple[TensorRtBackend, FakeLibrary, FakeDevice]]:
    def make(variant: TensorRtVariant = TENSORRT, graphs: bool = True, capture: str = "") -> Any:
        directory, plans = engine_directory(tmp_path / "a.engine", demo_engine, variant)
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
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_answers_follow_images_and_sentences(opened: Any, variant: TensorRtVariant, graphs: bool) -> None:
    backend, library, device = opened(variant, graphs)
    texts = [sentence(backend, seed) for seed in (1, 2)]
    assert not np.array_equal(texts[0].arrays["keys1"], texts[1].arrays["keys1"])
    for seed, (batch, which) in enumerate([(1, 0), (1, 0), (3, 0), (1, 1), (3, 1), (3, 0), (1, 0)]):
        images = some(batch, seed)
        np.testing.assert_allclose(backend.segment(images, texts[which]), wanted(images, texts[which]), rtol=1e-5)
    # One for the text, and one each for batches 1 and 3.
    assert library.contexts == 3
    assert library.runtime.engine_host_code_allowed is False
    ours = graphs and not variant.own_graphs
    assert device.calls.count("captured") == (3 if ours else 0)
    assert ("launch" in device.calls) == ours
    if variant is RTX:
        strategy = library.CudaGraphStrategy
        assert library.config.cuda_graph_strategy == (strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED)
        specialization = library.DynamicShapesKernelSpecializationStrategy
        assert library.config.dynamic_shapes_kernel_specialization_strategy == specialization.EAGER
    backend.close()
    assert all(buffer.freed for buffer in device.memory_map.values())
    with pytest.raises(EngineInvalidError, match="has been closed"):
        backend.segment(some(1), texts[0])


def test_a_sentence_is_copied_once(opened: Any) -> None:
    backend, _, device = opened()
    text = sentence(backend, 1)
    backend.segment(some(2), text)
    device.calls.clear()
    backend.segment(some(2, 5), text)
    # Only the image is uploaded.
    assert device.calls == ["upload", "launch", "download"]


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
    # One for the text; two lanes of two in turn, also for the last slice.
    assert library.contexts == 1 + 2


def test_a_series_that_is_left_or_fails_frees_its_lanes(opened: Any) -> None:
    backend, library, device = opened(graphs=False)
    text = sentence(backend, 1)
    left = backend.segment_many(iter([some(2)] * 5), text)
    next(left)
    left.close()
    library.says, library.execute = "out of memory", False
    with pytest.raises(errors.OutOfDeviceMemoryError, match=r"image\.plan did not run: out of memory"):
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
    # Once per lane: one of the text, one of the image.
    assert len(said) == 2
    assert "STREAM_CAPTURE_UNSUPPORTED" in said[0]


def test_a_failed_capture_leaves_no_context_behind(opened: Any) -> None:
    """The fake's context does not run again after one, and a new one runs in the same memory."""
    backend, library, device = opened(capture="no capture here")
    text = sentence(backend, 1)
    np.testing.assert_allclose(backend.segment(some(2), text), wanted(some(2), text), rtol=1e-5)
    # Two for the text, two for the image; one scratch memory each.
    assert library.contexts == 4
    assert [type(memory) for memory in device.memory_map.values()].count(FakeMemory) == 2


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_a_capture_meets_no_setup_and_no_free_of_other_threads(
    opened: Any, variant: TensorRtVariant, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a lane's graph is captured, others want a lane, free one, and load a plan; without the lock, they fail."""
    backend, library, device = opened(variant)
    text, wrong, threads = sentence(backend, 1), [], []
    backend.segment(some(1), text)
    lanes, plan = backend._lanes["image.plan"], next(iter(library.plans))
    with device.current():
        idle = lanes.acquire(1)
    if not locked:
        monkeypatch.setattr(device, "exclusive", nullcontext)

    def load() -> None:
        with device.exclusive():
            assert library.runtime.deserialize_cuda_engine(plan) is not None

    def other(work: Callable[[], Any]) -> None:
        try:
            with device.current():
                work()
        # What fails differs: a message of the library, an error of the driver.
        except Exception as error:
            wrong.append(error)

    def meanwhile() -> None:
        device.during_capture = lambda: None
        works = (lambda: backend.segment(some(3), text), idle.free, load)
        threads.extend(threading.Thread(target=other, args=(work,)) for work in works)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.1)

    device.during_capture = meanwhile
    capturing = threading.Thread(target=other, args=(lambda: backend.segment(some(2), text),))
    capturing.start()
    for thread in (capturing, *threads):
        thread.join(10)
    assert device.during_capture is not meanwhile and len(threads) == 3
    if locked:
        assert not wrong
        np.testing.assert_allclose(backend.segment(some(2), text), wanted(some(2), text), rtol=1e-5)
        assert backend.times(some(2), text)["captured"] == 1
    else:
        assert len(wrong) >= 2
        assert any("CAPTURE_UNSUPPORTED" in str(error) for error in wrong)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_the_first_answer_is_that_of_the_code_that_stays(opened: Any, variant: TensorRtVariant) -> None:
    """The first three runs of a context have other bits."""
    backend, library, _ = opened(variant)
    text = sentence(backend, 1)
    library.unsteady_runs = 3
    np.testing.assert_array_equal(backend.segment(some(2), text), backend.segment(some(2), text))
    np.testing.assert_allclose(backend.segment(some(2), text), wanted(some(2), text), rtol=1e-6)


def test_a_plan_that_never_settles_is_said(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend, library, _ = opened()
    library.unsteady_runs = 100
    sentence(backend, 1)
    assert "text.plan: 8 runs with the same inputs differ in their last bits" in caplog.messages[0]


def test_a_lane_takes_memory_for_its_own_batch(opened: Any) -> None:
    backend, library, device = opened()
    text = sentence(backend, 1)
    before = len(device.memory_map)
    for batch in (1, 3):
        backend.segment(some(batch), text)
    made = list(device.memory_map.values())[before:]
    assert [memory.size // SCRATCH for memory in made if type(memory) is FakeMemory] == [1, 3]
    assert library.most == 4


def test_on_a_jetson_a_sentence_is_copied_once_too(tmp_path: Path, demo_engine: Path) -> None:
    directory, plans = engine_directory(tmp_path / "a.engine", demo_engine, TENSORRT)
    device = FakeDevice(integrated=True)
    library = FakeLibrary(device, plans, directory.manifest.backend_version)
    driver = Driver((12, 6), (replace(A10, integrated=True),))
    opened: list[tuple[int, bool]] = []
    backend = TensorRtBackend(
        directory, driver=lambda: driver, device=lambda *which: opened.append(which) or device, library=library
    )
    assert opened == [(0, True)]
    text = sentence(backend, 1)
    for seed in range(2):
        device.calls.clear()
        np.testing.assert_allclose(backend.segment(some(2, seed), text), wanted(some(2, seed), text), rtol=1e-5)
    assert device.calls == ["upload", "launch", "download"]


def test_the_first_error_of_a_gpu_is_the_one_that_is_said(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After it, nothing can be freed any more."""
    backend, _, device = opened()
    text = sentence(backend, 1)
    backend.segment(some(2), text)

    def failing() -> Any:
        yield some(2)
        device.broken = "CUDA_ERROR_ILLEGAL_ADDRESS"
        yield some(2)

    with pytest.raises(errors.EngineError, match=r"the GPU failed .CUDA_ERROR_ILLEGAL_ADDRESS"):
        list(backend.segment_many(failing(), text))
    assert any("could not be freed: CUDA_ERROR_ILLEGAL_ADDRESS" in message for message in caplog.messages)
    assert device.inside == 0


def test_few_idle_lanes_are_kept(opened: Any) -> None:
    backend, _, device = opened(graphs=False)
    text = sentence(backend, 1)
    lanes = backend._lanes["image.plan"]
    for batch in (1, 2, 3, 4):
        backend.segment(some(batch), text)
    assert [lane.batch for lane in lanes._idle] == [2, 3, 4]
    # A second user of batch 4: another lane.
    with device.current():
        held = [lanes.acquire(4), lanes.acquire(4)]
        assert held[0] is not held[1]
        for lane in held:
            lanes.release(lane)
    assert [lane.batch for lane in lanes._idle] == [3, 4, 4]
    assert len(lanes._idle) == MAX_IDLE
    kept = {id(buffer) for lane in lanes._idle for buffer in lane._buffers.values()}
    made = [memory for memory in device.memory_map.values() if isinstance(memory, FakeBuffer)]
    images = [buffer for buffer in made if buffer.host.shape[1:] == (1, SIZE, SIZE)]
    assert all(buffer.freed != (id(buffer) in kept) for buffer in images)


def test_an_answer_does_not_wait_for_the_setup_of_another_lane(opened: Any) -> None:
    """Its lane is one too many, and freeing that needs the lock of the GPU; who holds it does so at the end."""
    backend, _, device = opened()
    text = sentence(backend, 1)
    lanes, starts, goes_on = backend._lanes["image.plan"], threading.Event(), threading.Event()
    with device.current():
        idle = [lanes.acquire(1), lanes.acquire(1), lanes.acquire(2)]
        for lane in idle:
            lanes.release(lane)
    slow = threading.Thread(target=lambda: backend.segment(some(4), text))

    def batches() -> Any:
        yield some(3)
        device.during_capture = lambda: starts.set() or goes_on.wait(5)
        slow.start()
        assert starts.wait(5)

    (answer,) = backend.segment_many(batches(), text)
    assert slow.is_alive() and not goes_on.is_set()
    np.testing.assert_allclose(answer, wanted(some(3), text), rtol=1e-5)
    assert idle[0] not in lanes._idle and idle[0]._buffers
    goes_on.set()
    slow.join(5)
    assert not idle[0]._buffers and [lane.batch for lane in lanes._idle] == [2, 3, 4]


def test_who_wants_more_lanes_than_there_may_be_waits(opened: Any) -> None:
    backend, _, device = opened()
    text = sentence(backend, 1)
    lanes = backend._lanes["image.plan"]
    lanes._max_lanes = 2
    with device.current():
        held = [lanes.acquire(1), lanes.acquire(1)]
        assert lanes.acquire(1, wait=False) is None
    answers: list[np.ndarray] = []
    waiting = threading.Thread(target=lambda: answers.append(backend.segment(some(1), text)))
    waiting.start()
    waiting.join(0.2)
    assert not answers
    with device.current():
        lanes.release(held[0])
    waiting.join(5)
    np.testing.assert_allclose(answers[0], wanted(some(1), text), rtol=1e-5)
    # A series takes what there is: one lane, batch after batch.
    lanes._max_lanes = 1
    with device.current():
        lanes.release(held[1])
        for lane in [lanes.acquire(1)]:
            lanes.discard(lane)
    found = list(backend.segment_many([some(2, 1), some(2, 2), some(2, 3)], text))
    for seed, logits in enumerate(found, 1):
        np.testing.assert_allclose(logits, wanted(some(2, seed), text), rtol=1e-5)


def test_a_series_runs_in_the_memory_of_one_lane(opened: Any) -> None:
    """The second lane does not fit: the first is used again. And what a lane that failed half-made had is freed."""
    backend, _, device = opened()
    text = sentence(backend, 1)
    # One lane's, its scratch memory, and a part of the next.
    device.buffers_left = len(IMAGE_TENSORS) + 1 + 3
    found = list(backend.segment_many([some(2, 1), some(2, 2), some(2, 3)], text))
    for seed, logits in enumerate(found, 1):
        np.testing.assert_allclose(logits, wanted(some(2, seed), text), rtol=1e-5)
    device.buffers_left = 10**6
    backend.close()
    assert all(buffer.freed for buffer in device.memory_map.values())


@pytest.mark.parametrize("sizes", [[4, 4, 2], [2, 4], [2]])
def test_images_of_a_batch_are_asked_for_several_sentences(opened: Any, sizes: list[int]) -> None:
    """Image i for sentence i modulo their number, also in a smaller or a larger batch than the first."""
    backend, _, _ = opened()
    texts = [sentence(backend, seed) for seed in (1, 2)]
    images = [some(size, seed) for seed, size in enumerate(sizes)]
    for answers in (
        list(backend.segment_many(images, type(texts[0]).joined(texts))),
        [backend.segment(batch, type(texts[0]).joined(texts)) for batch in images],
    ):
        for batch, logits in zip(images, answers, strict=True):
            for n, image in enumerate(batch):
                np.testing.assert_allclose(logits[n : n + 1], wanted(image[None], texts[n % 2]), rtol=1e-5)


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
    with pytest.raises(BatchSizeError, match=r"image is \(5, 1, 64, 64\), the engine supports .* --max-batch"):
        backend.segment(some(5), text)
    backend.segment(some(1), text)
    device.free_bytes = 1000
    with pytest.raises(
        errors.OutOfDeviceMemoryError, match=r"needs 0 MiB for a batch of 2, .* 0 MiB free; use smaller"
    ):
        backend.segment(some(2), text)
    # What was idle was given up first.
    assert backend._lanes["image.plan"]._idle == []
    # What a Jetson's driver calls free is less than what can be had.
    device.integrated = True
    backend.segment(some(2), text)


def test_no_context_says_why(opened: Any) -> None:
    backend, library, _ = opened()
    library.says = "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(errors.OutOfDeviceMemoryError, match="could not create an execution context for"):
        sentence(backend, 1)


def test_what_the_bindings_raise_is_said(opened: Any) -> None:
    """Most failures are answers; the inference of shapes raises, and an overload that does not exist."""
    backend, library, device = opened()
    library.raises = "shapes of x and y do not match"
    with pytest.raises(EngineInvalidError, match=r"text\.plan rejected the shapes of batch 1: shapes of x and y"):
        sentence(backend, 1)
    assert all(buffer.freed for buffer in device.memory_map.values())


def test_what_rtx_compiled_is_kept_for_the_next_process(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    backend, library, _ = opened(RTX)
    assert library.caches == []
    backend.close()
    assert sorted(p.name for p in (tmp_path / "cache").rglob("*.cache")) == ["image.plan.cache", "text.plan.cache"]
    _, library, _ = opened(RTX)
    assert library.caches == [b"compiled", b"compiled"]
    folder = next((tmp_path / "cache").rglob("text.plan.cache")).parent
    # Another GPU's or version's is another file.
    assert folder.name == "nvidia-a10-1-7-1-116"
    monkeypatch.setenv(CACHE, "")
    _, library, _ = opened(RTX)
    assert library.caches == []


@pytest.mark.parametrize("graphs", [True, False])
def test_events_stand_around_copies_and_computation(opened: Any, graphs: bool) -> None:
    """An event of the fake counts what was put on the stream before it."""
    backend, _, device = opened(graphs=graphs)
    manifest = SimpleNamespace(max_tokens=T, image_size=SIZE)
    found = event_times(backend, manifest, Effort(0.0, 0.0, 3, 3))
    assert found.pop("captured").values == (float(graphs),) * 3
    assert {name: samples.values for name, samples in found.items() if name != "enqueue"} == {
        # The image; the sentence is there already.
        "h2d": (1.0,) * 3,
        "compute": (1.0,) * 3,
        "d2h": (1.0,) * 3,
    }
    assert all(0 < value < 1000 for value in found["enqueue"].values)
    assert "an event died outside of current()" not in device.calls
    # The lane came back.
    assert backend.segment(some(1), sentence(backend, 1)).shape == (1, SIZE, SIZE)
    assert device.inside == 0


def test_a_failed_run_is_not_timed(opened: Any) -> None:
    backend, library, device = opened(graphs=False)
    text = sentence(backend, 1)
    library.execute = False
    with pytest.raises(errors.EngineError, match="did not run"):
        backend.times(some(1), text)
    library.execute = True
    assert set(backend.times(some(1), text)) == {"enqueue", "h2d", "compute", "d2h", "captured"} and device.inside == 0


def test_a_graph_that_is_not_captured_is_not_called_one(opened: Any) -> None:
    backend, _, _ = opened(capture="no capture here")
    assert backend.times(some(1), sentence(backend, 1))["captured"] == 0


def test_what_rtx_cannot_capture_is_not_called_a_graph(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The library is asked; that it was told to capture says nothing."""
    backend, library, _ = opened(RTX)
    text = sentence(backend, 1)
    assert backend.times(some(1), text)["captured"] == 1
    library.capturable = False
    assert backend.times(some(2), text)["captured"] == 0
    assert "runs without a CUDA graph" in caplog.messages[-1]
    backend, _, _ = opened(RTX, graphs=False)
    assert backend.times(some(1), sentence(backend, 1))["captured"] == 0
