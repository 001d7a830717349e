"""What a training run does when: stages by the share of the run that is done, so that hours and epochs read alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lsms_rt.model import LsmsConfig

from .batches import Shape
from .losses import Weights
from .sentences import Mix


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run.

    Attributes:
        name: for the log.
        until: the share of the run at which the stage ends, in (0, 1].
        shape: of its batches.
        dense: the share of batches without sentences, in which every region is meant: sight comes before words.
        rate: learning rate at its start and its end, as a factor of the recipe's; between them half a cosine.
        average: how much of the averaged weights an update keeps.
    """

    name: str
    until: float
    shape: Shape
    dense: float
    rate: tuple[float, float]
    average: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a training run; recorded with its result.

    Attributes:
        stages: in order; the last ends at 1.
        mix: how sentences are drawn.
        weights: of the losses.
        learning_rate: of AdamW.
        text_rate: the text encoder's rate as a factor: Adam moves every parameter at full speed, and the noise of the
            convolutions would move the words.
        weight_decay, beta2, clip: of AdamW, and the limit of the gradient's norm.
        warmup: updates until the rate is reached, at every start.
        text_updates: updates of the text encoder alone before a new run.
        layer_scale: initial scale of every residual branch of a new network: SegNeXt's 1e-2 needs days to grow.
        specificity: the share of false sentences that must get an empty mask; thresholds are chosen for it.
        seed: of all random numbers.
    """

    stages: tuple[Stage, ...]
    mix: Mix = field(default_factory=Mix)
    weights: Weights = field(default_factory=Weights)
    learning_rate: float = 1e-3
    text_rate: float = 0.1
    weight_decay: float = 0.02
    beta2: float = 0.98
    clip: float = 1.5
    warmup: int = 60
    text_updates: int = 500
    layer_scale: float = 0.3
    specificity: float = 0.93
    seed: int = 0

    def stage(self, progress: float) -> tuple[Stage, float]:
        """The stage at ``progress`` in [0, 1], and the learning rate there."""
        start = 0.0
        for stage in self.stages:
            if progress < stage.until:
                break
            start = stage.until
        else:
            stage, start = self.stages[-1], 0.0 if len(self.stages) == 1 else self.stages[-2].until
        share = min(1.0, max(0.0, (progress - start) / (stage.until - start)))
        first, last = stage.rate
        return stage, self.learning_rate * (last + (first - last) * 0.5 * (1 + math.cos(math.pi * share)))


def default_recipe(config: LsmsConfig, *, complete: bool, batch: int = 8, seed: int = 0) -> Recipe:
    """Crops of half the image's side first, whole slices last.

    A crop costs a quarter of a whole slice, and words are learnt as well there.  The last stage is needed: instance
    norms see more air in a whole slice, and the network must adapt to it at a rate that still moves it.

    Args:
        config: of the model.
        complete: whether the data set knows every lesion of a slice; without that no batch is dense.
        batch: slices per batch of crops.
        seed: of all random numbers.
    """
    side = max(64, config.image_size // 2 // 32 * 32)
    crops = Shape(slices=batch, size=side, whole=False)
    whole = Shape(slices=max(2, batch * 3 // 4), size=config.image_size, whole=True)
    dense = 1.0 if complete else 0.0
    return Recipe(
        stages=(
            Stage(name="sight", until=0.15, shape=crops, dense=0.7 * dense, rate=(1.0, 1.0), average=0.998),
            Stage(name="words", until=0.75, shape=crops, dense=0.2 * dense, rate=(1.0, 1.0), average=0.998),
            Stage(name="fading", until=0.82, shape=crops, dense=0.1 * dense, rate=(1.0, 0.2), average=0.998),
            Stage(name="whole slices", until=1.0, shape=whole, dense=0.1 * dense, rate=(0.4, 0.0), average=0.99),
        ),
        seed=seed,
    )
