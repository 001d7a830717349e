"""Options of ``lsms-rt calibrate``: names, defaults and limits.

The command line reads them from here, so this module imports neither ONNX nor the phantom.
"""

from __future__ import annotations

from dataclasses import dataclass

from lsms_rt.engine.gate import DEFAULT_BUDGET
from lsms_rt.errors import InputError

MAX_DICE_DROP = DEFAULT_BUDGET
METHODS = ("minmax", "percentile", "entropy")
BY = ("layer", "group")
# Of every bootstrap: the ends of its 95 % interval are then good to about a hundredth of the interval.
RESAMPLES = 2000


def check_budget(max_dice_drop: float) -> None:
    """Raise :class:`InputError` for a budget outside of 0 to 1; no data exclude a loss of 0."""
    if not 0 < max_dice_drop <= 1:
        raise InputError(f"--max-dice-drop {max_dice_drop}; give more than 0, up to 1, e.g. 0.01 for one Dice point")


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Options of ``calibrate``.

    Attributes:
        max_dice_drop: loss of mean Dice that must be excluded, above 0 and up to 1; see ``policy.failures``.
        margin: safety margin: the chosen layers make at most 1/margin of the noise of the largest set of layers that
            passes; 1 chooses that set itself.
        slices: rows of ``split`` on which activation ranges are measured.
        probe: rows of ``held_out_split`` on which the effect of each unit is measured.
        held_out: rows of ``held_out_split`` on which each set of units is judged, at most.
        split: rows that ranges are measured on.
        held_out_split: rows that INT8 is judged on; another split than ``split``.
        method: how ranges are measured, one of ``METHODS``; "auto" uses, for each unit, "minmax" or "percentile",
            whichever loses less accuracy.
        by: granularity of the search, one of ``BY``; a unit is a layer or a group of layers.
        seed: random seed for selecting rows.
        threads: CPU threads; None for one per core.

    Raises:
        InputError: a value is out of range, or the two splits are the same.
    """

    max_dice_drop: float = MAX_DICE_DROP
    margin: float = 4.0
    slices: int = 64
    probe: int = 24
    held_out: int = 400
    split: str = "train"
    held_out_split: str = "val"
    method: str = "auto"
    by: str = "layer"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check_budget(self.max_dice_drop)
        if not 1 <= self.margin < float("inf"):
            raise InputError(f"--margin {self.margin}; give 1 (none) or more")
        for name, choices in (("method", ("auto", *METHODS)), ("by", BY)):
            if getattr(self, name) not in choices:
                raise InputError(f"--{name} {getattr(self, name)}; choose from {', '.join(choices)}")
        if self.split == self.held_out_split:
            raise InputError(
                f"--split and --held-out-split are both {self.split!r}; INT8 must be judged on rows that ranges were "
                "not measured on"
            )
        for name in ("slices", "probe", "held_out"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}; give at least 1")
