"""What was left out when a series was read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class LeftOut:
    """Files of an input that are not among its slices; the reader fills it in.

    Attributes:
        damaged: one message per file that may have been a slice and could not be read: damaged ones, links that lead to
            no file, and files that begin or are named like a slice.
        not_dicom: number of files that are no DICOM images, and do not look like damaged ones.
        not_ct: number of DICOM files that are no CT slices (other objects, localizers).
    """

    damaged: list[str] = field(default_factory=list)
    not_dicom: int = 0
    not_ct: int = 0
