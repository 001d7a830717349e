"""What another meaning would be true of in a slice, by what the data set says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.bench.accuracy.described import masks_by_lesion
from lsms_rt.datasets.knowledge import lesion_of
from lsms_rt.datasets.phantom.queries import Query
from lsms_rt.datasets.phantom.sentences import targets_of
from lsms_rt.datasets.questions import Question
from lsms_rt.postprocess import area_mm2

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A lesion's recorded area has one decimal.
AREA_SLACK_MM2 = 0.1


@dataclass(frozen=True, eq=False)
class Truth:
    """What a meaning is true of.

    Attributes:
        mask: bool (H, W) in the input's grid; all False if it is true of nothing.
        lesions: the number of lesions; None if only the mask is known.
    """

    mask: NDArray[np.bool_]
    lesions: int | None


class SliceTruth:
    """The meanings of one slice.

    Known are those that its sentences have and, where the data set has a table of lesions, all on which readers would
    agree and whose masks can be told from those of the sentences.
    """

    def __init__(self, asked: list[Question], table: dict[int, dict[str, str]]) -> None:
        """Args: all questions about the slice, and its lesions by number, as ``read_lesions`` returns them."""
        self.said = {question.row.query: question.truth for question in asked if question.row.query}
        self.nothing = np.zeros_like(asked[0].truth)
        single = masks_by_lesion(asked) if table else {}
        self.phase = next(iter(table.values())).get("phase", "") if table else ""
        self.lesions = [lesion_of(row, single.get(n, self.nothing)) for n, row in table.items() if row.get("left_mm")]
        spacing = asked[0].ct.spacing_mm
        area = {one.id: area_mm2(one.mask, spacing) for one in self.lesions}
        # Lesions that no sentence tells apart share a mask, and some have none.
        self.outlined = {
            n for n, mm2 in area.items() if mm2 is not None and abs(mm2 - float(table[n]["area_mm2"])) <= AREA_SLACK_MM2
        }

    def of(self, query: Query) -> Truth | None:
        """Return what a meaning is true of; None if that is not known, or readers could disagree."""
        targets = targets_of(query, self.lesions, self.phase) if self.lesions else None
        said = self.said.get(query.key())
        if said is not None:
            return Truth(said, None if targets is None else len(targets))
        if targets is None or not self.outlined.issuperset(one.id for one in targets):
            return None
        return Truth(_union(self.nothing, (one.mask for one in targets)), len(targets))


def _union(nothing: NDArray[np.bool_], masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.reduce([nothing, *masks]))
