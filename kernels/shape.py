"""What a kernel is specialized for: one stage of one model at one image size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS, PRESETS

# Strides of the four encoder stages.
STRIDES = (4, 8, 16, 32)
# A sentence is padded to one of them (svla.pad_tokens).
TOKEN_COUNTS = (16, OWN_TOKENS, MAX_TOKENS)


@dataclass(frozen=True)
class Shape:
    """The sizes that a kernel is compiled for.

    Everything but the batch is a compile-time constant: a kernel then has no integer arguments, as TensorRT's plugins
    require, and loads are vectorized if the sizes allow it.

    Attributes:
        channels: a multiple of 32.
        height: rows of a map.
        width: columns of a map.
        tokens: padded tokens of a sentence, one of TOKEN_COUNTS.
        dtype: element type of the maps, "fp16" or "fp32".

    Raises:
        ValueError: the kernels do not support one of the values.
    """

    channels: int
    height: int
    width: int
    tokens: int = OWN_TOKENS
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        if self.channels % 32 or self.channels < 32:
            raise ValueError(f"channels is {self.channels}; the kernels support multiples of 32, as all presets have")
        if self.tokens not in TOKEN_COUNTS:
            raise ValueError(f"tokens is {self.tokens}; pad the sentence to {', '.join(map(str, TOKEN_COUNTS))}")
        if self.dtype not in ("fp16", "fp32"):
            raise ValueError(f"dtype is {self.dtype!r}; the kernels support fp16 and fp32")

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def chunk(self) -> int:
        """Pixels per program of an attention kernel."""
        return chunk_of(self.pixels)

    @property
    def chunks(self) -> int:
        return -(-self.pixels // self.chunk)

    @property
    def key(self) -> str:
        """A name that is also a file name: ``c64_h128_w128_t32_fp16``."""
        return f"c{self.channels}_h{self.height}_w{self.width}_t{self.tokens}_{self.dtype}"


@dataclass(frozen=True)
class RestShape(Shape):
    """The sizes that the kernels of the rest of a block are compiled for: all but its SVLA.

    They see no tokens, and have the second number of channels of the MLP.

    Attributes:
        ratio: channels inside the MLP, as a multiple of ``channels``.
    """

    ratio: int = 4

    @property
    def expanded(self) -> int:
        """Channels inside the MLP."""
        return self.channels * self.ratio

    @property
    def key(self) -> str:
        """A name that is also a file name: ``c64_e512_h128_w128_fp16``."""
        return f"c{self.channels}_e{self.expanded}_h{self.height}_w{self.width}_{self.dtype}"


@dataclass(frozen=True)
class DecoderShape(Shape):
    """The sizes that the decoder's kernel is compiled for: its width in channels, and the map at stride 4.

    Raises:
        ValueError: a side is not a multiple of 8, so that there is no map at stride 32.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.height % 8 or self.width % 8:
            raise ValueError(f"the map at stride 4 is {self.height}x{self.width}; its sides must be multiples of 8")

    @property
    def key(self) -> str:
        """A name that is also a file name: ``d256_h128_w128_fp16``."""
        return f"d{self.channels}_h{self.height}_w{self.width}_{self.dtype}"


def is_svla(shape: Shape) -> bool:
    """Return whether a shape is of SVLA's kernels, not of those around it."""
    return type(shape) is Shape


def image_side(text: str) -> int:
    """Parse the side of a square input from the command line.

    Raises:
        ValueError: it is not a positive multiple of 32.
    """
    size = int(text)
    if size <= 0 or size % STRIDES[-1]:
        raise ValueError(f"{size} is not a positive multiple of {STRIDES[-1]}")
    return size


def chunk_of(pixels: int) -> int:
    """Return the pixels per program of an attention kernel: fewer for small maps, to occupy more of the GPU."""
    for limit, chunk in ((512, 16), (2048, 32), (8192, 64)):
        if pixels <= limit:
            return chunk
    return 128


def stage_shapes(preset: str, image_size: int, dtype: str = "fp16", tokens: int = OWN_TOKENS) -> list[Shape]:
    """Return the shapes of the four stages of a preset at a square input of ``image_size`` pixels."""
    dims = PRESETS[preset].dims
    return [Shape(c, image_size // s, image_size // s, tokens, dtype) for c, s in zip(dims, STRIDES, strict=True)]


def rest_shapes(preset: str, image_size: int, dtype: str = "fp16") -> list[RestShape]:
    """Return the shapes of the rest of a block in the four stages, as ``stage_shapes``."""
    ratios = PRESETS[preset].mlp_ratios
    return [
        RestShape(s.channels, s.height, s.width, dtype=dtype, ratio=ratio)
        for s, ratio in zip(stage_shapes(preset, image_size, dtype), ratios, strict=True)
    ]


def decoder_shape(preset: str, image_size: int, dtype: str = "fp16") -> DecoderShape:
    """Return the shape of the decoder's kernel for a preset at a square input."""
    side = image_size // STRIDES[0]
    return DecoderShape(PRESETS[preset].decoder_width, side, side, dtype=dtype)


def shapes_around(preset: str, image_size: int, dtype: str = "fp16") -> list[Shape]:
    """Return the shapes of all kernels that are not SVLA's, for a preset at a square input."""
    return [*rest_shapes(preset, image_size, dtype), decoder_shape(preset, image_size, dtype)]


def all_shapes(sizes: tuple[int, ...], dtype: str = "fp16", tokens: int = OWN_TOKENS) -> Iterator[Shape]:
    """Yield the distinct stage shapes of all presets at ``sizes``; three presets have the same channels."""
    yield from dict.fromkeys(
        shape for preset in PRESETS for size in sizes for shape in stage_shapes(preset, size, dtype, tokens)
    )
