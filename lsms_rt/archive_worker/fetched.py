"""Whether what an archive sent is what it was asked for: a result must never be of other images than it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lsms_rt.reading.quiet import quiet_pydicom

from .dicomweb import Series
from .retry import ArchiveFailedError

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def check_fetched(folder: Path, series: Series, instances: Sequence[str]) -> None:
    """Raise unless the files of a folder are the images of a series, each once.

    Args:
        folder: of the files.
        series: whose they should be.
        instances: SOPInstanceUIDs of its images.

    Raises:
        ArchiveFailedError: there is another number of files, one of another study or series, or an image twice.
    """
    paths, left = list(folder.iterdir()), set(instances)
    if len(paths) != len(left):
        raise ArchiveFailedError(f"the archive sent {len(paths)} of the series' {len(left)} images")
    for path in paths:
        uids = _uids(path)
        if uids is None:
            continue
        study, own, instance = uids
        if (study, own) != (series.study, series.uid) or instance not in left:
            raise ArchiveFailedError("the archive sent images that it was not asked for, or one twice")
        left.remove(instance)


def _uids(path: Path) -> list[str] | None:
    """Return an image's UIDs; None if it cannot be read, which the reader tells."""
    from pydicom import dcmread

    try:
        with quiet_pydicom():
            ds = dcmread(path, stop_before_pixels=True, specific_tags=list(UIDS))
        return [str(ds[name].value) for name in UIDS]
    except Exception:
        # Of damaged files pydicom raises almost any class.
        return None
