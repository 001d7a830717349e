"""A source as all converters hand it over: scans with masks, in the model's frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.privacy import label


@dataclass(frozen=True, eq=False)
class LesionMask:
    """Lesions with one label: ``mask`` bool (N, H, W), and the ``type`` that the label names, or ""."""

    mask: np.ndarray
    type: str = ""


@dataclass(frozen=True, eq=False)
class Finding:
    """A sentence of the source, and what it means: ``mask`` bool (N, H, W)."""

    sentence: str
    mask: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Volume:
    """One scan.  All masks are bool (N, H, W) in the model's frame, for the N slices from feet to head.

    Attributes:
        slices: the slices.
        lesions: of a source without sentences.
        findings: of a source with sentences.
        organs: name of an organ -> its mask; the lesions in it are part of the organ or not, as the source has it.
        lobes: "left" and "right" lobe of the liver -> mask, where the source has them.
        unlabeled: where the source says that nobody has looked; None: nowhere.
        types: all types that the labels of the source name.
        exhaustive: whether a finding's mask shows all of it, so that its sentence is false of slices far away.
    """

    slices: list[CtSlice]
    lesions: list[LesionMask] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    organs: dict[str, np.ndarray] = field(default_factory=dict)
    lobes: dict[str, np.ndarray] = field(default_factory=dict)
    unlabeled: np.ndarray | None = None
    types: tuple[str, ...] = ()
    exhaustive: bool = False

    @property
    def any_lesion(self) -> np.ndarray:
        """Return the union of all lesions and findings, bool (N, H, W)."""
        union = np.zeros((len(self.slices), *self.slices[0].hu.shape), bool)
        for mask in [one.mask for one in self.lesions] + [one.mask for one in self.findings]:
            union |= mask
        return union


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """One scan of a source, not read yet.

    Attributes:
        case_id: its name in the data set and in messages.
        patient: whom it shows; all scans of one patient are in one split.
        read: reads it; raises InputError where it cannot be used.
        split: "train", "val" or "test" if the source has an official split, else "".
        sentences: all sentences of a source that has them.
    """

    case_id: str
    patient: str
    read: Callable[[], Volume]
    split: str = ""
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """All scans of a source, and what its folder says about it.

    Attributes:
        cases: sorted by name.
        license: as the folder states it, or "".
        citation: as the folder states it, or "".
        notes: what a user must know, one sentence each.
        labels: label -> what it is taken for, where the labels are the same for all cases.
        problems: files that cannot be used and belong to no case, one line each.
    """

    cases: list[SourceCase]
    license: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def source_name(folder: Path) -> str:
    """Return how messages call the folder of a source: by its name if names are shown."""
    return label(folder, "the source")
