"""What an engine is compared with, and the engine itself, as functions from a slice and a sentence to logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lsms_rt.engine import EngineDirectory, open_backend, open_directory
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.machine.cpu import cpu_count
from lsms_rt.tokenizer import Tokens

if TYPE_CHECKING:
    from lsms_rt.model import LSMS

# Slices at the same time; each needs the memory of one whole forward pass.
MAX_WORKERS = 8

# An image (1, 1, S, S) and the tokens of a sentence.
Inputs = tuple[np.ndarray, Tokens]


class Reference(Protocol):
    """Something that computes logits: a PyTorch model, or an engine."""

    @property
    def name(self) -> str:
        """What it is, for reports."""

    def __call__(self, image: np.ndarray, tokens: Tokens) -> np.ndarray:
        """``image`` (1, 1, S, S) and tokens -> logits (S, S)."""

    def all(self, inputs: list[Inputs]) -> list[np.ndarray]:
        """Return the logits of all inputs, in order."""

    def tuned(self, image_size: int, tokens: int) -> AbstractContextManager[None]:
        """While the context is open, single calls use the number of threads that is fastest on this machine now."""


@dataclass(frozen=True)
class _Parallel:
    """Computes several slices at the same time, each on one thread.

    Threads that share one slice wait for each other after every operation; on a machine with other work a slice then
    took seconds.
    """

    run: Callable[[np.ndarray, Tokens], np.ndarray]
    workers: int
    name: str

    def __call__(self, image: np.ndarray, tokens: Tokens) -> np.ndarray:
        return self.run(image, tokens)

    def all(self, inputs: list[Inputs]) -> list[np.ndarray]:
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(lambda pair: self.run(*pair), inputs))

    def tuned(self, image_size: int, tokens: int) -> AbstractContextManager[None]:
        return nullcontext()


class _ModelReference(_Parallel):
    """A PyTorch model; PyTorch's number of threads is 1 while ``all`` runs."""

    def all(self, inputs: list[Inputs]) -> list[np.ndarray]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().all(inputs)
        finally:
            torch.set_num_threads(threads)

    @contextmanager
    def tuned(self, image_size: int, tokens: int) -> Iterator[None]:
        import torch

        threads = torch.get_num_threads()
        inputs = np.zeros((1, 1, image_size, image_size), np.float32), any_tokens(tokens)
        seconds = {}
        # All threads are faster on an idle machine, one thread on a busy machine.
        for count in dict.fromkeys((threads, 1)) if threads > 1 else ():
            torch.set_num_threads(count)
            self.run(*inputs)
            begin = time.perf_counter()
            self.run(*inputs)
            seconds[count] = time.perf_counter() - begin
        torch.set_num_threads(min(seconds, key=lambda count: seconds[count]) if seconds else threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def any_tokens(count: int) -> Tokens:
    """Return the tokens of a sentence of one word, for an engine with ``count`` tokens."""
    return Tokens(np.eye(1, count, 1, dtype=np.int64), np.eye(1, count, dtype=np.float32))


def of_model(model: LSMS) -> Reference:
    """Return a PyTorch model as a reference; ``kernels="reference"`` is the model by its definition."""
    import torch

    dtype = next(model.parameters()).dtype

    def run(image: np.ndarray, tokens: Tokens) -> np.ndarray:
        pixels, ids, mask = (torch.from_numpy(array) for array in (image, tokens.ids, tokens.mask))
        with torch.no_grad():
            logits = model(pixels.to(dtype), ids, mask.to(dtype))
        return np.asarray(logits[0, 0].float().numpy())

    name = f"PyTorch, {'fp32' if dtype == torch.float32 else str(dtype).removeprefix('torch.')}, on the CPU"
    return _ModelReference(run, min(MAX_WORKERS, cpu_count()), name)


def of_engine(engine: Path | EngineDirectory) -> Reference:
    """Open an engine as a reference, on the CPU if its backend runs there, where fp32 is fp32; else on the GPU."""
    directory = engine if isinstance(engine, EngineDirectory) else open_directory(engine)
    spec = BACKENDS[directory.manifest.backend]
    one_by_one = spec.needs_gpu or spec.serial
    backend = open_backend(directory, threads=None if one_by_one else 1, device=spec.exact_device)

    def run(image: np.ndarray, tokens: Tokens) -> np.ndarray:
        return backend.segment(image, backend.encode_text(tokens.ids, tokens.mask))[0]

    where = "GPU" if spec.needs_gpu else "CPU"
    name = f"{spec.title} {backend.version}, {directory.manifest.precision}, on the {where}"
    return _Parallel(run, 1 if one_by_one else min(MAX_WORKERS, cpu_count()), name)
