"""Run a model on a GPU with PyTorch: half precision, our kernels, one CUDA graph for every batch size.

This needs no TensorRT.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsms_rt.errors import EngineInvalidError

from .encoder import TextFeatures
from .forms import TRITON
from .lsms import LSMS
from .packs import Watch, packs_of
from .transfer import bring, send

# Runs before a capture: Triton compiles, cuDNN chooses its algorithms, memory is allocated.
WARM_UP = 3
# Captured graphs that are kept; each holds the activations of its batch.
GRAPHS = 4
# For all runners: PyTorch frees and allocates memory differently while any graph is captured.
CAPTURING = threading.Lock()


@dataclass
class _Captured:
    """A CUDA graph, the tensors that it reads and the one it writes.

    ``packs`` are the packed weights: a graph reads their memory, which nothing else keeps once they are packed again.
    """

    graph: Any
    image: Tensor
    text: TextFeatures
    logits: Tensor
    packs: list[object]
    # First keys of the sentence whose features ``text`` holds.
    loaded: Tensor | None = None


class TorchRunner:
    """Runs the two halves of a model on one device; safe to use from several threads, which take turns.

    The model's weights must not change afterwards: a captured graph, and a compiled model, read copies of some of them.
    Once either exists, every call compares the weights of the image half, while the GPU computes, and raises
    ``EngineInvalidError`` if one was changed, moved or replaced (a replaced module is not seen).

    ``model`` is moved to ``device`` and converted to ``dtype`` (default: float16 on CUDA, float32 on a CPU), in place.
    ``graphs`` captures the image half into CUDA graphs (default: on CUDA).  ``compile_mode`` lets ``torch.compile``
    fuse the operations between our kernels ("default", "max-autotune-no-cudagraphs"), before capture; every input size
    is compiled once, up to the compiler's own limit (eight).  There is no fallback: a model that cannot be captured or
    compiled as a whole raises an error.
    """

    def __init__(
        self,
        model: LSMS,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        graphs: bool | None = None,
        compile_mode: str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_gpu = self.device.type == "cuda"
        # Each thread has its own current device.
        if str(self.device) == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.dtype = dtype or (torch.float16 if on_gpu else torch.float32)
        self.graphs = on_gpu if graphs is None else graphs
        if self.graphs and not on_gpu:
            raise ValueError(f"CUDA graphs need a GPU, but the runner's device is {self.device}; use graphs=False")
        if model.kernels in TRITON and not on_gpu:
            raise ValueError(
                f"this model runs Triton kernels, but the runner's device is {self.device}; load it with "
                "kernels='stock'"
            )
        self.model = model.to(self.device, self.dtype).eval()
        self._segment: Callable[[Tensor, TextFeatures], Tensor] = self.model.segment
        self._compile_mode = compile_mode
        # Height, width and tokens for which the kernels' weights are packed and tuned tiles read: the compiler can
        # do neither.
        self._prepared: set[tuple[int, ...]] = set()
        # The image half's weights, as they were when it was captured or compiled.
        self._watch: Watch | None = None
        self._closed = False
        self._captured: OrderedDict[tuple[int, ...], _Captured] = OrderedDict()
        self._lock = threading.Lock()
        # An event after the last caller's work.
        self._done: Any = None

    @torch.inference_mode()
    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextFeatures:
        """``tokens`` (1, T) int64, ``mask`` (1, T) -> the sentence's features for the image half, on the device."""
        with self.turn():
            return self.model.encode_text(tokens.to(self.device), mask.to(self.device, self.dtype))

    @torch.inference_mode()
    def segment(self, images: Tensor, text: TextFeatures) -> Tensor:
        """``images`` (B, 1, S, S) in [-1, 1] on any device, ``text`` of N sentences -> logits float32 (B, S, S).

        Image i is asked for sentence i modulo N; N divides B.

        The result is on the device and may not be ready yet; ``start`` brings it to the host.
        """
        with self.turn():
            # A copy: the next call overwrites the graph's own tensor.
            return self._run(images, text).to(torch.float32, copy=True)

    @torch.inference_mode()
    def start(self, images: Tensor, text: TextFeatures) -> Callable[[], Tensor]:
        """Start to compute the same, and to copy it to the host: the result waits for this alone, and returns it.

        Several may be under way; so the host prepares one batch while the GPU computes another.
        """
        with self.turn():
            return send(self._run(images, text))

    def _run(self, images: Tensor, text: TextFeatures) -> Tensor:
        """Return logits (B, S, S) in the runner's type, in memory that the next call may overwrite."""
        if self._watch is None and (self.graphs or self._compile_mode is not None):
            self._watch = Watch(*(part for name, part in self.model.named_children() if name != "text_encoder"))
        logits = self._compute(images, text)
        if self._watch is not None and self._watch.changed():
            raise EngineInvalidError(
                "the model's weights were changed after its first answer in this runner, which keeps copies of them; "
                "create a new TorchRunner"
            )
        return logits

    def _compute(self, images: Tensor, text: TextFeatures) -> Tensor:
        self._prepare(images, text)
        if not self.graphs:
            logits = self._segment(bring(images, self.device, self.dtype), _rows(text, len(images)))
            return logits[:, 0]
        captured = self._graph_for(images, text)
        bring(images, self.device, self.dtype, into=captured.image)
        if captured.loaded is not text.keys[0]:
            _copy(captured.text, _rows(text, len(images)))
            captured.loaded = text.keys[0]
        captured.graph.replay()
        return captured.logits[:, 0]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one caller in at a time; on a GPU also in the order of the calls, whatever streams the callers use."""
        with self._lock:
            if self._closed:
                raise EngineInvalidError("this runner has been closed; create a new TorchRunner")
            if self.device.type != "cuda":
                yield
                return
            with torch.cuda.device(self.device):
                stream = torch.cuda.current_stream()
                if self._done is not None:
                    # The last caller's graph may still read the tensors that are written now.
                    stream.wait_event(self._done)
                try:
                    yield
                finally:
                    # Also after an error: what was queued before it still reads and writes.
                    self._done = stream.record_event()

    def _graph_for(self, images: Tensor, text: TextFeatures) -> _Captured:
        key = (*images.shape, text.mask.shape[1])
        if key not in self._captured:
            captured = self._capture(images, text)
            if len(self._captured) >= GRAPHS:
                self._wait()
                self._captured.popitem(last=False)
            self._captured[key] = captured
        self._captured.move_to_end(key)
        return self._captured[key]

    def _wait(self) -> None:
        """Wait until no graph runs: its memory is free for others as soon as it is destroyed."""
        if self._done is not None:
            self._done.synchronize()

    def close(self) -> None:
        """Free the captured graphs; further calls raise an error."""
        with self._lock:
            self._wait()
            self._captured.clear()
            self._closed = True

    def _prepare(self, images: Tensor, text: TextFeatures) -> None:
        """Run once without the compiler at new sizes: what the kernels keep for them, the compiler only looks up."""
        size = (*images.shape[2:], text.mask.shape[1])
        if self._compile_mode is None or size in self._prepared:
            return
        self.model.segment(images.to(self.device, self.dtype), _rows(text, len(images)))
        if not self._prepared:
            self._segment = torch.compile(self.model.segment, mode=self._compile_mode, dynamic=False, fullgraph=True)
        self._prepared.add(size)

    def _capture(self, images: Tensor, text: TextFeatures) -> _Captured:
        with CAPTURING, measured_convolutions():
            return self._capture_alone(images, text)

    def _capture_alone(self, images: Tensor, text: TextFeatures) -> _Captured:
        image = images.to(self.device, self.dtype, copy=True)
        rows = _rows(text, len(images))
        static = _static(rows)
        if not self.model.encoder.folds:
            # The definition's arithmetic is of one type; kernels read the mask in fp32.
            static = replace(static, mask=rows.mask.clone())
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._segment(image, static)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            logits = self._segment(image, static)
        return _Captured(graph, image, static, logits, packs_of(self.model))


@contextmanager
def measured_convolutions() -> Iterator[None]:
    """Let cuDNN measure its algorithms at a convolution's first run, and take the fastest into a captured graph.

    The switch belongs to the process, so it is set back.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _map(text: TextFeatures, change: Callable[[Tensor], Tensor]) -> TextFeatures:
    return replace(
        text,
        keys=tuple(change(t) for t in text.keys),
        values=tuple(change(t) for t in text.values),
        mask=change(text.mask),
    )


def _static(text: TextFeatures) -> TextFeatures:
    """Copy the features in the layout that the kernels read: a block's rows together, the mask in fp32."""
    by_block = _map(text, lambda t: t.transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(0, 1))
    return replace(by_block, mask=text.mask.to(torch.float32, copy=True))


def _rows(text: TextFeatures, batch: int) -> TextFeatures:
    """Repeat sentences for the images of a batch."""
    if len(text.mask) == 1:
        return _map(text, lambda t: t.expand(batch, *t.shape[1:]))
    times, rest = divmod(batch, len(text.mask))
    if rest:
        raise ValueError(f"{batch} images for {len(text.mask)} sentences; give a multiple of the sentences")
    return _map(text, lambda t: t.repeat(times, *[1] * (t.dim() - 1)))


def _copy(target: TextFeatures, source: TextFeatures) -> None:
    for a, b in zip(
        (*target.keys, *target.values, target.mask), (*source.keys, *source.values, source.mask), strict=True
    ):
        a.copy_(b)
