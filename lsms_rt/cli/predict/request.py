"""What ``lsms-rt predict`` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lsms_rt.reading.stated import NOTHING, Stated


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options of a prediction; the same for every slice of every input.

    Attributes:
        output: folder to write; None writes no files.
        series: which series to read, where an input holds several; None for the only one.
        stated: facts that the inputs do not hold.
        batch: images per call of the engine, where a slice counts once per sentence; None for its largest batch.
        seg: whether to write a DICOM Segmentation of each input in which something was found.
        empty_seg: whether to write one of the other inputs, too.
        nifti: whether to write a mask volume of each input.
    """

    output: Path | None = field(default=None, repr=False)
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING
    batch: int | None = None
    seg: bool = False
    empty_seg: bool = False
    nifti: bool = False

    @property
    def needs_seg(self) -> bool:
        return self.seg or self.empty_seg
