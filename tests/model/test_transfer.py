"""Copies between host and GPU, with stand-ins for a GPU's tensors: their order, and who waits for what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lsms_rt.model import transfer

GPU = torch.device("cuda", 0)


class OnGpu:
    """A tensor on a GPU that does not exist: it logs what is done with it."""

    def __init__(self, log: list[str], values: Tensor) -> None:
        self.log, self.values, self.shape, self.dtype = log, values, values.shape, values.dtype
        self.device = GPU

    def to(self, device: torch.device, dtype: torch.dtype) -> OnGpu:
        assert device == GPU
        self.log.append(f"convert {self.dtype} to {dtype}")
        return OnGpu(self.log, self.values.to(dtype))

    def copy_(self, other: OnGpu) -> OnGpu:
        self.log.append(f"copy {other.dtype} to {self.dtype}, on the GPU")
        self.values.copy_(other.values)
        return self


class PageLocked:
    """A tensor in page-locked memory: a copy from the GPU arrives when its event is waited for."""

    def __init__(self, log: list[str], size: torch.Size, dtype: torch.dtype) -> None:
        self.log, self.values, self.coming = log, torch.full(size, float("nan"), dtype=dtype), None

    def copy_(self, source: Any, non_blocking: bool = False) -> None:
        if isinstance(source, OnGpu):
            assert non_blocking
            self.log.append(f"send {source.dtype}")
            self.coming = source.values.clone()
        else:
            self.log.append(f"stage {source.dtype}")
            self.values.copy_(source)

    def to(self, target: Any, *, non_blocking: bool = False, copy: bool = False) -> Any:
        if target == GPU:
            assert non_blocking
            return OnGpu(self.log, self.values.clone())
        assert copy
        return self.values.to(target, copy=True)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []
    homes: list[PageLocked] = []

    def page_locked(size: torch.Size, dtype: torch.dtype) -> PageLocked:
        homes.append(PageLocked(log, size, dtype))
        return homes[-1]

    def arrive() -> None:
        log.append("wait for the event")
        homes[-1].values.copy_(homes[-1].coming)

    stream = SimpleNamespace(record_event=lambda: SimpleNamespace(synchronize=arrive))
    monkeypatch.setattr(transfer, "page_locked", page_locked)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("waits for all of the GPU"))
    return log


def test_images_travel_in_their_own_type_and_are_converted_on_the_gpu(log: list[str]) -> None:
    images = torch.rand(2, 1, 4, 4)
    arrived = transfer.bring(images, GPU, torch.float16)
    assert log == ["stage torch.float32", "convert torch.float32 to torch.float16"]
    torch.testing.assert_close(arrived.values, images.half())
    log.clear()
    target: Any = OnGpu(log, torch.zeros(2, 1, 4, 4).half())
    assert transfer.bring(images, GPU, torch.float16, into=target) is target
    assert log == ["stage torch.float32", "copy torch.float32 to torch.float16, on the GPU"]
    torch.testing.assert_close(target.values, images.half())


def test_images_on_the_gpu_are_not_staged(log: list[str]) -> None:
    images: Any = OnGpu(log, torch.rand(1, 1, 4, 4))
    transfer.bring(images, GPU, torch.float16)
    assert log == ["convert torch.float32 to torch.float16"]


def test_logits_come_home_in_half_precision_and_only_their_copy_is_waited_for(log: list[str]) -> None:
    logits: Any = OnGpu(log, torch.rand(2, 4, 4).half())
    wanted = logits.values.float()
    wait = transfer.send(logits)
    assert log == ["send torch.float16"]
    # The next call's.
    logits.values.zero_()
    found = wait()
    assert log[1:] == ["wait for the event"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


def test_on_the_cpu_nothing_is_page_locked(log: list[str]) -> None:
    images = torch.rand(1, 1, 4, 4)
    assert transfer.bring(images, torch.device("cpu"), torch.float32) is images
    logits = images[:, 0]
    wait = transfer.send(logits)
    kept = logits.clone()
    logits.zero_()
    torch.testing.assert_close(wait(), kept)
    assert log == []
