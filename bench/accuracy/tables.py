"""Figures by what a sentence speaks of: which words does the model understand?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .judged import Judged
from .kinds import kind_of, type_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures of the sentences of one kind; None where there are none.

    Attributes:
        true: number of true sentences.
        dice: their mean Dice.
        missed: the share of them with an empty mask.
        dice_where_painted: mean Dice of those with a mask.
        false: number of false sentences.
        silence: the share of them with an empty mask.
    """

    true: int
    dice: float | None
    missed: float | None
    dice_where_painted: float | None
    false: int
    silence: float | None


Table = dict[str, Row]


def tables(judged: list[Judged]) -> dict[str, Table]:
    """Return the tables "kind" and "type", their rows in the order of their size; empty without recorded meanings."""
    found = {"kind": _table(judged, kind_of), "type": _table(judged, type_of)}
    return {name: table for name, table in found.items() if table}


def _table(judged: list[Judged], name_of: Callable[[str], str]) -> Table:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if name := name_of(one.answer.row.query):
            groups[name].append(one)
    return {name: _row(groups[name]) for name in sorted(groups, key=lambda name: -len(groups[name]))}


def _row(group: list[Judged]) -> Row:
    true = [one.answer for one in group if one.answer.target_nonempty]
    false = [one.answer for one in group if not one.answer.target_nonempty]
    painted = [answer.dice for answer in true if answer.predicted_nonempty]
    return Row(
        true=len(true),
        dice=float(np.mean([answer.dice for answer in true])) if true else None,
        missed=1 - len(painted) / len(true) if true else None,
        dice_where_painted=float(np.mean(painted)) if painted else None,
        false=len(false),
        silence=float(np.mean([not answer.predicted_nonempty for answer in false])) if false else None,
    )
