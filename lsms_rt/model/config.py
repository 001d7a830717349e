"""Sizes of the network: one frozen dataclass and a table of named presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lsms_rt.body import CROPS

# Tokens of a sentence: at most, and of a network with a small vocabulary of its own, where a word is a token.  Of seven
# sentences of reports three have more than 32 of BERT's tokens.  The Triton kernels hold all tokens of a sentence at
# once (kernels/shape.py), so a larger number needs other kernels.
MAX_TOKENS, OWN_TOKENS = 64, 32


# Largest sizes.  Those of a file are allocated before its weights are seen.
_LARGEST = {
    "vocab_size": 1_000_000, "hidden_size": 8192, "layers": 256, "heads": 256, "intermediate_size": 32768,
    "max_tokens": 8192, "dims": 8192, "depths": 256, "mlp_ratios": 64, "in_channels": 64, "decoder_width": 8192,
    "image_size": 8192,
}  # fmt: skip
# Weights of each of the two encoders, at most: three times those of BERT-large.
MAX_WEIGHTS = 1_000_000_000


def _check_size(name: str, value: object) -> None:
    if type(value) is not int or not 1 <= value <= _LARGEST[name]:
        shown = value if type(value) is int and abs(value) < 10**20 else f"a {type(value).__name__}"
        raise ValueError(f"{name} is {shown}; give a whole number from 1 to {_LARGEST[name]}")


def _check_weights(part: str, count: int) -> None:
    if count > MAX_WEIGHTS:
        raise ValueError(f"{part} would have {count:.0e} weights; at most {MAX_WEIGHTS:.0e} are supported")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A BERT-shaped text encoder.  The defaults are BERT-base, the paper's setting (abstract, arXiv 2408.17347)."""

    vocab_size: int = 30522
    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "max_tokens"):
            _check_size(name, getattr(self, name))
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        _check_weights("the text encoder", self.vocab_size * self.hidden_size + self.layers * layer)


@dataclass(frozen=True, kw_only=True)
class LsmsConfig:
    """The sizes of an LSMS and the preprocessing of its input.

    ``dims``, ``depths`` and ``mlp_ratios`` are the four encoder stages (SegNeXt, arXiv 2209.08575, table 2).
    ``decoder_width`` is our choice: 256, and 128 for tiny.  ``image_size`` is the side of the square input in
    pixels, a multiple of 32.  ``hu_window`` is (lower, upper) in HU and maps to [-1, 1].  A pixel is in the mask where
    its probability exceeds ``threshold``; where none reaches ``confidence``, the answer is "not found".
    ``subpixel`` is how many logits the decoder predicts along each side of a stride-4 cell (1, 2 or 4); ``presence``
    adds the presence head, whose logit caps those of the mask.  ``crop`` is what of a slice becomes the input: "none",
    the whole slice, or "body", the square around the body (``lsms_rt.body``).
    """

    preset: str = "base"
    dims: tuple[int, int, int, int] = (64, 128, 320, 512)
    depths: tuple[int, int, int, int] = (3, 3, 12, 3)
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)
    in_channels: int = 1
    decoder_width: int = 256
    image_size: int = 512
    hu_window: tuple[float, float] = (-160.0, 240.0)
    threshold: float = 0.5
    confidence: float = 0.5
    subpixel: int = 1
    presence: bool = False
    crop: str = "none"
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        if not (isinstance(self.preset, str) and self.preset.isprintable() and len(self.preset) <= 200):
            raise ValueError("preset is no text of one line and at most 200 characters")
        for name in ("in_channels", "decoder_width", "image_size"):
            _check_size(name, getattr(self, name))
        for name in ("dims", "depths", "mlp_ratios"):
            sizes = getattr(self, name)
            if not (isinstance(sizes, tuple) and len(sizes) == 4):
                raise ValueError(f"{name} holds no four sizes; give one for each stage of the encoder")
            for size in sizes:
                _check_size(name, size)
        stages = zip(self.dims, self.depths, self.mlp_ratios, strict=True)
        _check_weights("the image encoder", sum(depth * 2 * (ratio + 2) * dim**2 for dim, depth, ratio in stages))
        window = self.hu_window
        if not (isinstance(window, tuple) and len(window) == 2 and all(map(_is_number, window))):
            raise ValueError("hu_window holds no two numbers; give (lower, upper) in HU")
        for name in ("threshold", "confidence"):
            if not (_is_number(value := getattr(self, name)) and 0 <= value <= 1):
                raise ValueError(f"{name} is no number from 0 to 1")
        if self.image_size % 32 or self.image_size < 64:
            raise ValueError(
                f"image_size is {self.image_size}; it must be a multiple of 32 and at least 64: "
                "the decoder folds every scale onto the stride-32 grid"
            )
        if self.decoder_width % 32:
            raise ValueError(f"decoder_width is {self.decoder_width}; heads are 32 wide, use a multiple of 32")
        if self.subpixel not in (1, 2, 4):
            raise ValueError(f"subpixel is {self.subpixel}; a stride-4 cell has 1, 2 or 4 predicted pixels per side")
        if self.crop not in CROPS:
            raise ValueError(f"crop is {self.crop!r}; choose from {', '.join(CROPS)}")
        if not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"hu_window is {self.hu_window}; give (lower, upper) in HU")

    def to_dict(self) -> dict[str, Any]:
        """Return the config in plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LsmsConfig:
        """Create a config from a result of :meth:`to_dict`.  Raises ``ValueError`` that names unknown keys."""
        if not isinstance(values, dict):
            raise ValueError(f"config.json holds a {type(values).__name__}, not an object of sizes")
        known = cls.__dataclass_fields__
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"config.json has unknown keys {unknown}; known are {sorted(known)}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        if "text" in plain:
            plain["text"] = _text_from(plain["text"])
        return cls(**plain)


def _text_from(values: Any) -> TextConfig:
    known = TextConfig.__dataclass_fields__
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ValueError(f"text holds something other than the sizes {sorted(known)}")
    # Before it could be another, it was left out of some.
    return TextConfig(**{"max_tokens": OWN_TOKENS} | values)


PRESETS: dict[str, LsmsConfig] = {
    "tiny": LsmsConfig(preset="tiny", dims=(32, 64, 160, 256), depths=(3, 3, 5, 2), decoder_width=128),
    "small": LsmsConfig(preset="small", dims=(64, 128, 320, 512), depths=(2, 2, 4, 2)),
    "base": LsmsConfig(preset="base", dims=(64, 128, 320, 512), depths=(3, 3, 12, 3)),
    "large": LsmsConfig(preset="large", dims=(64, 128, 320, 512), depths=(3, 5, 27, 3)),
}


def preset(name: str, **changes: Any) -> LsmsConfig:
    """Return the preset ``name`` with some fields changed.  Raises ``ValueError`` for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; choose from {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
