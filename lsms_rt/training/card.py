"""The model card of a training: what the weights are, what they were trained on, what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lsms_rt
from lsms_rt.datasets.matching import FOUND_DICE
from lsms_rt.model import LsmsConfig

from .sentences import meaning_of
from .slices import Slices

# What each loss needs, and which losses and batches need it.
NEEDS = {
    "organs": ("pixels",),
    "attributes of lesions": ("looks",),
    "meanings of sentences": ("sentence",),
    "every lesion of a slice": ("dense batches",),
}
ALWAYS = ("bce", "dice", "select", "hard", "presence", "contrast")


@dataclass(frozen=True)
class Losses:
    """Which losses a data set allows.

    Attributes:
        used: their names, as in ``losses.Weights``.
        left_out: what the data set does not know -> the losses that need it.
    """

    used: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]

    @property
    def absent(self) -> str:
        """What is left out and why, as text."""
        rows = [f"{', '.join(names)} (the data set does not know {what})" for what, names in self.left_out.items()]
        return "; ".join(rows) or "none"


def losses_of(parts: Sequence[Slices], presence: bool, *, grammar: bool = True) -> Losses:
    """Which losses these slices allow.

    Args:
        parts: folders of slices.
        presence: whether the network has a presence head.
        grammar: whether the grammar speaks of lesions whose attributes are known: it means what it says.
    """
    records = [record for part in parts for record in part.records]
    attributes = all(record.lesions is not None for record in records)
    known = {
        "organs": all(part.organs is not None for part in parts),
        "attributes of lesions": attributes,
        "meanings of sentences": (attributes and grammar)
        or any(meaning_of(row.meaning) for record in records for row in record.asked),
        "every lesion of a slice": all(part.complete for part in parts),
    }
    used = [name for name in ALWAYS if presence or name != "presence"]
    used += [name for what, names in NEEDS.items() if known[what] for name in names]
    return Losses(tuple(used), {what: names for what, names in NEEDS.items() if not known[what]})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says.

    Attributes:
        dataset: name of the data set's folder.
        counts: lines about its splits.
        init: what the training began with.
        config: of the network.
        losses: used and left out.
        history: of the run, see ``release.history``.
        point: thresholds, and what they give on validation sentences.
        update: the weights are those of this update.
        remarks: what a user should know.
    """

    dataset: str
    counts: Sequence[str]
    init: str
    config: LsmsConfig
    losses: Losses
    history: dict[str, Any]
    point: dict[str, Any]
    update: int
    remarks: Sequence[str]


def card(facts: Facts) -> str:
    """Return the content of ``README.md``."""
    config, run, point = facts.config, facts.history, facts.point
    start = run["starts"][-1]
    device = start["device"]["gpu"] or start["device"]["processor"]
    shape = f"preset {config.preset}, input {config.image_size}x{config.image_size}, crop {config.crop}"
    words = config.text
    text = (
        f"text encoder: {words.layers} layers of width {words.hidden_size}, {words.vocab_size} words, "
        f"sentences of at most {words.max_tokens} tokens"
    )
    silence = "-" if point["specificity"] is None else f"{point['specificity']:.1%}"
    remarks = "".join(f"\n{remark[0].upper()}{remark[1:]}.\n" for remark in facts.remarks)
    return f"""# Model card

LSMS (arXiv 2408.17347, reconstructed), trained with `lsms-rt train`. **Not a medical device.**

| | |
|---|---|
| network | {shape}; {text} |
| began with | {facts.init} |
| data | {facts.dataset}: {"; ".join(facts.counts)} |
| training | {run["examples"]} examples, {run["updates"]} updates; {"; ".join(run["stages"]) or "no stage was logged"} |
| weights | averaged, of update {facts.update}: the best on the validation split |
| losses | {", ".join(facts.losses.used)} |
| left out | {facts.losses.absent} |
| device, time | {device}, {run["hours"]:.2f} hours of training |
| lsms-rt, date | {lsms_rt.__version__}, {start["date"]} |
{remarks}
On {point["sentences"]} sentences of the validation split, on which weights and thresholds were chosen (a test split
gives a fair figure, also per lesion and for outlines: `lsms-rt evaluate ENGINE DATASET --split test`, and with
`--probe-words` which words matter):

| figure | |
|---|---|
| threshold, confidence | {config.threshold}, {config.confidence:.4f} |
| mean Dice, sentences that are true of something | {point["dice"]:.3f} |
| missed: true sentences that get an empty mask | {point["missed"]:.1%} |
| hit rate: true sentences with a Dice of at least {FOUND_DICE} | {point["hit_rate"]:.1%} |
| specificity: false sentences that get an empty mask | {silence} |

![Curves](curves.png)

![Worst, median and best answers to validation sentences](examples.png)
"""
