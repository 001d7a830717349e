"""What a kernel is specialised for: one stage of one model at one image size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lsms_rt.model.config import PRESETS

STRIDES = (4, 8, 16, 32)  # of the four encoder stages
TOKENS = 32  # an engine's sentences are padded to it


@dataclass(frozen=True)
class Shape:
    """Channels, rows and columns of a map, padded tokens of a sentence (16 or 32), "fp16" or "fp32".

    Everything but the batch is a compile-time constant: a kernel then has no integer arguments, which TensorRT's
    plugins want, and loads are vectorised where the sizes allow it.
    """

    channels: int
    height: int
    width: int
    tokens: int = TOKENS
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        if self.channels % 32 or self.channels < 32:
            raise ValueError(f"{self.channels} channels; the kernels take multiples of 32, as all presets have")
        if self.tokens not in (16, 32):
            raise ValueError(f"{self.tokens} tokens; pad the sentence to 16 or 32")
        if self.dtype not in ("fp16", "fp32"):
            raise ValueError(f"dtype {self.dtype!r}; the kernels take fp16 and fp32")

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def chunk(self) -> int:
        return chunk_of(self.pixels)

    @property
    def chunks(self) -> int:
        return -(-self.pixels // self.chunk)

    @property
    def key(self) -> str:
        """A name that is also a file name: ``c64_h128_w128_t32_fp16``."""
        return f"c{self.channels}_h{self.height}_w{self.width}_t{self.tokens}_{self.dtype}"


def image_side(text: str) -> int:
    """Of a command line: a side of a square input."""
    size = int(text)
    if size <= 0 or size % STRIDES[-1]:
        raise ValueError(f"{size} is no multiple of {STRIDES[-1]}")
    return size


def chunk_of(pixels: int) -> int:
    """Pixels that one program of an attention kernel sees: small maps are cut finer, to occupy more of the GPU."""
    for limit, chunk in ((512, 16), (2048, 32), (8192, 64)):
        if pixels <= limit:
            return chunk
    return 128


def stage_shapes(preset: str, image_size: int, dtype: str = "fp16") -> list[Shape]:
    """The four stages of a preset at a square input of ``image_size`` pixels."""
    dims = PRESETS[preset].dims
    return [Shape(c, image_size // s, image_size // s, TOKENS, dtype) for c, s in zip(dims, STRIDES, strict=True)]


def all_shapes(sizes: tuple[int, ...], dtype: str = "fp16") -> Iterator[Shape]:
    """The different stages of all presets at ``sizes``; three presets share their channels."""
    seen = dict.fromkeys(shape for preset in PRESETS for size in sizes for shape in stage_shapes(preset, size, dtype))
    yield from seen
