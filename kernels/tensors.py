"""The one table of the tensors that kernels read and write: their axes and their element type.

Everything else about a tensor follows from it: its size (``size_of``), its element type in a launch (``arguments``),
and whether it has one entry per slice or is a weight (``is_batched``).  A name that is not in the table is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from .shape import Shape

BATCH, CHANNELS, HEIGHT, WIDTH, PIXELS, TOKENS, CHUNKS = (
    "batch", "channels", "height", "width", "pixels", "tokens", "chunks",
)  # fmt: skip
# Of a RestShape only.
EXPANDED = "expanded"


@dataclass(frozen=True)
class TensorSpec:
    """The axes of a tensor, and whether it is float32 for maps of any type.

    Attributes:
        axes: from outer to inner; a name for a size that depends on the shape, or the size itself.
        fp32: True for statistics, biases, masks and offsets; else the element type is that of the maps.
        stride: by which height and width are smaller than the shape's.
    """

    axes: tuple[str | int, ...]
    fp32: bool = False
    stride: int = 1

    @property
    def is_batched(self) -> bool:
        """True for what belongs to a slice or a sentence, False for a weight."""
        return self.axes[0] == BATCH

    @property
    def is_map(self) -> bool:
        """True for (batch, channels, height, width), whatever the number of channels."""
        return len(self.axes) == 4 and self.axes[2:] == (HEIGHT, WIDTH)


_MAP = TensorSpec((BATCH, CHANNELS, HEIGHT, WIDTH))
_TOKEN_ROWS = TensorSpec((BATCH, TOKENS, CHANNELS))
_PER_TOKEN = TensorSpec((BATCH, TOKENS), fp32=True)
_MOMENTS = TensorSpec((BATCH, CHUNKS, 2, CHANNELS), fp32=True)
_PER_CHANNEL = TensorSpec((BATCH, CHANNELS), fp32=True)
_POINTWISE = TensorSpec((CHANNELS, CHANNELS))
_BIAS = TensorSpec((CHANNELS,), fp32=True)
_WIDE_MAP = TensorSpec((BATCH, EXPANDED, HEIGHT, WIDTH))
_WIDE_BIAS = TensorSpec((EXPANDED,), fp32=True)

TENSORS: dict[str, TensorSpec] = {
    # the inputs of a block
    "x": _MAP,
    "keys": _TOKEN_ROWS,
    "values": _TOKEN_ROWS,
    "mask": _PER_TOKEN,
    # its packed weights (svla.PackedWeights)
    # bands.FILTERS, bands.COPIES, bands.COLUMNS.
    "bands": TensorSpec((CHANNELS, 11, 8, 32)),
    "bias": _BIAS,
    "row_bias": TensorSpec((CHANNELS, HEIGHT), fp32=True),
    "query": _POINTWISE,
    "hidden": _POINTWISE,
    "gate": _POINTWISE,
    "mix": _POINTWISE,
    "mix_bias": _BIAS,
    # what kernels write
    "a": _MAP,
    "s": _MAP,
    "rows": TensorSpec((BATCH, CHANNELS, 3, HEIGHT, WIDTH)),
    "statistics": _MOMENTS,
    "folded_keys": _TOKEN_ROWS,
    "offset": _PER_TOKEN,
    "p": TensorSpec((BATCH, TOKENS, PIXELS)),
    "attended": _MOMENTS,
    "context": _TOKEN_ROWS,
    "context_offset": _PER_CHANNEL,
    "layer": _TOKEN_ROWS,
    "layer_offset": _PER_CHANNEL,
    "u": _MAP,
    "y": _MAP,
    # the rest of a block (block.PackedBlock): its weights; it reads x, and y, which SVLA wrote
    "inner": _POINTWISE,
    "inner_bias": _BIAS,
    "outer": _POINTWISE,
    "outer_bias": _BIAS,
    "shortcut": _BIAS,
    "expand": TensorSpec((EXPANDED, CHANNELS)),
    "expand_bias": _WIDE_BIAS,
    "taps": TensorSpec((EXPANDED, 9)),
    "taps_bias": _WIDE_BIAS,
    "reduce": TensorSpec((CHANNELS, EXPANDED)),
    "reduce_bias": _BIAS,
    # what its kernels write; SVLA reads v as its x
    "v": _MAP,
    "z": _MAP,
    "wide": _WIDE_MAP,
    "activated": _WIDE_MAP,
    "next": _MAP,
    # the LayerNorm at the end of a stage, at a RestShape
    "stage_scale": TensorSpec((CHANNELS,)),
    "stage_shift": TensorSpec((CHANNELS,)),
    "normed": _MAP,
    # the decoder's sum of scales, at a DecoderShape; x is at stride 4
    "y2": TensorSpec(_MAP.axes, stride=2),
    "y4": TensorSpec(_MAP.axes, stride=4),
    "y8": TensorSpec(_MAP.axes, stride=8),
    "merge_scale": _BIAS,
    "merge_shift": _BIAS,
    "merged": _MAP,
}


def spec(name: str) -> TensorSpec:
    """Look up a tensor.

    Raises:
        ValueError: it is not in the table.
    """
    if name not in TENSORS:
        raise ValueError(f"tensor {name!r} is not in TENSORS; add its axes and type to kernels/tensors.py")
    return TENSORS[name]


def size_of(name: str, shape: Shape, batch: int) -> tuple[int, ...]:
    """Return the size of a tensor for ``batch`` slices at a shape."""
    found = spec(name)
    return tuple(_length(axis, shape, batch) // (found.stride if axis in (HEIGHT, WIDTH) else 1) for axis in found.axes)


def dtype_of(name: str, shape: Shape) -> str:
    """Return the element type of a tensor at a shape, "fp16" or "fp32"."""
    return "fp32" if spec(name).fp32 else shape.dtype


def is_batched(name: str) -> bool:
    """Return True for a tensor with one entry per slice or sentence, False for a weight."""
    return spec(name).is_batched


def arguments(shape: Shape, *names: str) -> dict[str, str]:
    """Return name -> element type, in order: the pointers of a launch."""
    return {name: dtype_of(name, shape) for name in names}


def _length(axis: str | int, shape: Shape, batch: int) -> int:
    if isinstance(axis, int):
        return axis
    length: int = batch if axis == BATCH else getattr(shape, axis)
    return length
