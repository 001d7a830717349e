"""What ``lsms-rt predict`` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lsms_rt.reading.stated import NOTHING, Stated
from lsms_rt.writing.seg import SegType

from .shard import Shard

# The fields that ask for files of an input as a whole.
SWITCHES = ("seg", "empty_seg", "sr", "sc", "rtstruct", "nifti")


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
        seg_type: how a DICOM Segmentation holds its segments, "binary" or "labelmap".
        sr: whether to write a DICOM report of the measures of each input; it refers to a Segmentation, written with it.
        sc: whether to write key images of each input as DICOM Secondary Captures.
        rtstruct: whether to write a DICOM RT Structure Set of each input in which something was found.
        nifti: whether to write a mask volume of each input.
        texts: whether DICOM objects hold the sentences also where names are hidden: of one who knows that they name
            nobody.
        shard: which part of the inputs to process, into a folder of its own in ``output``; None for all.
    """

    output: Path | None = field(default=None, repr=False)
    series: str | None = field(default=None, repr=False)
    stated: Stated = NOTHING
    batch: int | None = None
    seg: bool = False
    empty_seg: bool = False
    seg_type: SegType = "binary"
    sr: bool = False
    sc: bool = False
    rtstruct: bool = False
    nifti: bool = False
    texts: bool = False
    shard: Shard | None = None

    @property
    def files(self) -> list[bool | str]:
        """Which files of an input as a whole are asked for, and of which type: all of a run have the same."""
        return [*(getattr(self, name) for name in SWITCHES), self.seg_type]

    @property
    def needs_seg(self) -> bool:
        return self.seg or self.empty_seg or self.sr
