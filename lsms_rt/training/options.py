"""Options of ``lsms-rt train``: names, defaults and limits.

The command line reads them from here, so this module imports no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsms_rt.body import CROPS
from lsms_rt.errors import InputError
from lsms_rt.model.config import PRESETS

DEMO, NONE = "demo", "none"
DEVICES = ("cpu", "cuda")
DEFAULT_EPOCHS = 20
# Of a new network.
DEFAULT_PRESET, DEFAULT_SIZE, DEFAULT_CROP = "tiny", 256, "body"
MIN_SIZE, STEP = 64, 32
# What decides which network is trained on what; a resumed run must repeat it.
FIXED = ("init", "preset", "image_size", "text_encoder", "backbone", "crop", "seed")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of ``train``.

    Attributes:
        dataset: data set in the RefHL-Seg layout, with the splits "train" and "val".
        output: folder of the run, which becomes a checkpoint.
        init: what the training begins with: "demo", the bundled weights; "none", a new network; or a checkpoint folder.
        preset: size of a new network, one of ``PRESETS``; None for ``DEFAULT_PRESET``.
        image_size: side of the network's input in pixels; None for that of ``init``, or ``DEFAULT_SIZE``.
        text_encoder: Hugging Face folder of a BERT for a new network: weights and vocabulary.
        backbone: file with MSCAN weights for a new network, as SegNeXt publishes them.
        crop: what of a slice becomes the input, "none" or "body"; None for that of ``init``, or ``DEFAULT_CROP``.
        epochs: length of the whole run in passes over the training slices.
        hours: length of the whole run in hours of training; with neither, ``DEFAULT_EPOCHS`` epochs.
        device: "cpu" or "cuda".
        threads: CPU threads; None for one per core.
        seed: of all random numbers.
        resume: continue the run in ``output``.

    Raises:
        InputError: a value is out of range, or two options exclude each other.
    """

    dataset: Path
    output: Path
    init: str = DEMO
    preset: str | None = None
    image_size: int | None = None
    text_encoder: Path | None = None
    backbone: Path | None = None
    crop: str | None = None
    epochs: int | None = None
    hours: float | None = None
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("preset", tuple(PRESETS)), ("crop", CROPS), ("device", DEVICES)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}; choose from {', '.join(choices)}")
        if self.epochs is not None and self.hours is not None:
            raise InputError(f"--epochs {self.epochs} and --hours {self.hours:g} exclude each other; remove one")
        for name in ("epochs", "hours"):
            length = getattr(self, name)
            if length is not None and not 0 < length < float("inf"):
                raise InputError(f"--{name} {length}; give more than 0")
        if self.image_size is not None and (self.image_size % STEP or self.image_size < MIN_SIZE):
            raise InputError(f"--image-size {self.image_size}; give a multiple of {STEP}, {MIN_SIZE} or more")
        if not self.is_new:
            for name in ("preset", "text_encoder", "backbone"):
                if getattr(self, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise InputError(
                        f"{option} is for a new network, and --init is {self.init!r}; add --init none, or remove "
                        f"{option}"
                    )

    @property
    def is_new(self) -> bool:
        """Whether a new network is trained."""
        return self.init == NONE

    def fixed(self) -> dict[str, str | int | None]:
        """What a resumed run must repeat, in plain types."""
        values = {name: getattr(self, name) for name in FIXED}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
