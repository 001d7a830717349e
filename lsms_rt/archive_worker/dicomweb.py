"""What is asked of an archive by DICOMweb: QIDO-RS, WADO-RS and STOW-RS (PS3.18)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from .http import JSON, Http, body_of
from .multipart import KIND, boundary_of, joined, save_parts
from .retry import ArchiveFailedError, ArchiveRefusedError
from .rules import Facts

PAGE = 200
# of a request; an object that is larger goes alone
STOW_BYTES = 64 * 2**20
# of a fetched series
MAX_BYTES = 16 * 2**30
# seconds for a series
FETCH_S = 3600.0
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# Tags of DICOM's JSON.
MODALITY, DESCRIPTION, THICKNESS, PART = "00080060", "0008103E", "00180050", "00180015"
MANUFACTURER, MODEL, INSTANCE, STUDY, SERIES, COUNT = (
    "00080070", "00081090", "00080018", "0020000D", "0020000E", "00201209",
)  # fmt: skip
SHARED_GROUPS, MEASURES = "52009229", "00289110"
PATIENT = "00100020", "00100010", "00100030"


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of the archive.

    Attributes:
        study: its StudyInstanceUID.
        uid: its SeriesInstanceUID.
        count: number of its images.
    """

    study: str = field(repr=False)
    uid: str = field(repr=False)
    count: int


def value(item: Any, tag: str) -> Any:
    """Return the first value of an attribute in DICOM's JSON; None if there is none."""
    try:
        return item[tag]["Value"][0]
    except (KeyError, IndexError, TypeError):
        return None


def uid(item: Any, tag: str) -> str:
    """Return a UID of DICOM's JSON; ArchiveFailedError if it is none: it becomes a part of addresses."""
    found = value(item, tag)
    if not isinstance(found, str) or len(found) > 64 or not UID.fullmatch(found):
        raise ArchiveFailedError("the archive's answer lacks a UID, or has one that is none")
    return found


class DicomWeb:
    """An archive.  All methods raise ArchiveError.

    Args:
        http: speaks with it.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def series(self, days: int) -> Iterator[Series]:
        """Yield the CT series of studies of the last ``days`` days; of all studies for 0."""
        params: dict[str, Any] = {"Modality": "CT", "includefield": COUNT}
        if days:
            # A scanner's clock may be ahead by its time zone.
            params["StudyDate"] = f"{date.today() - timedelta(days):%Y%m%d}-{date.today() + timedelta(1):%Y%m%d}"
        for item in self._all("/series", params, STUDY, SERIES):
            study, own, count = uid(item, STUDY), uid(item, SERIES), value(item, COUNT)
            number = count if isinstance(count, int) else len(self.instances(study, own))
            yield Series(study=study, uid=own, count=number)

    def instances(self, study: str, series: str) -> list[str]:
        """Return the SOPInstanceUIDs of a series, sorted; none if there is no such series."""
        path = f"/studies/{study}/series/{series}/instances"
        return sorted(uid(item, INSTANCE) for item in self._all(path, {}, INSTANCE))

    def facts(self, study: str, series: str, instance: str) -> Facts:
        """Return what an image says of its series."""
        path = f"/studies/{study}/series/{series}/instances/{instance}/metadata"
        item = next(iter(self._rows(path)), None)
        # A multi-frame image says it of all its frames.
        measures = value(value(item, SHARED_GROUPS), MEASURES)
        thickness = _number(item, THICKNESS)
        return Facts(
            modality=_text(item, MODALITY),
            series_description=_text(item, DESCRIPTION),
            body_part=_text(item, PART),
            slice_thickness_mm=_number(measures, THICKNESS) if thickness is None else thickness,
            manufacturer=_text(item, MANUFACTURER),
            model=_text(item, MODEL),
            patient=json.dumps([value(item, tag) for tag in PATIENT], sort_keys=True),
        )

    def fetch(self, study: str, series: str, folder: Path) -> None:
        """Write the images of a series into a folder, as the archive has them."""
        size, end = 0, time.monotonic() + FETCH_S

        def new_file(number: int) -> BinaryIO:
            return (folder / f"{number:05d}.dcm").open("xb")

        def watched(chunks: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                if size > MAX_BYTES:
                    raise ArchiveRefusedError(f"the series is larger than {MAX_BYTES >> 30} GiB; segment it by hand")
                if time.monotonic() > end:
                    raise ArchiveFailedError(f"the archive did not send the series within {FETCH_S / 60:g} min")
                yield chunk

        headers = {"Accept": f"{KIND}; transfer-syntax=*"}
        with self._http.request("GET", f"/studies/{study}/series/{series}", headers=headers) as answer:
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            save_parts(watched(answer.iter_bytes(2**18)), boundary, new_file)

    def has(self, study: str, instance: str) -> bool:
        """Return whether the archive has an object."""
        found = self._rows(f"/studies/{study}/instances", {"SOPInstanceUID": instance, "limit": 1})
        # An archive that does not know the condition answers with any object.
        return any(value(item, INSTANCE) == instance for item in found)

    def store(self, study: str, paths: Sequence[Path]) -> bool:
        """Store objects, in their order; ask with :meth:`has` whether they are there: an answer may be lost.

        Returns:
            Whether the archive had no conflict (409): otherwise it has them already, or refuses them.
        """
        agreed = True
        for together in _batches(paths):
            kind, body = joined(together)
            with self._http.request(
                "POST", f"/studies/{study}", allowed=(409,), content=body,
                headers={"Content-Type": kind, "Accept": JSON},
            ) as answer:  # fmt: skip
                body_of(answer)
                agreed &= answer.is_success
        return agreed

    def _all(self, path: str, params: dict[str, Any], *tags: str) -> Iterator[Any]:
        """Yield what all pages of an answer hold, each once: the UIDs of attributes ``tags`` tell one from another."""
        known: set[tuple[str, ...]] = set()
        while True:
            page = self._rows(path, params | {"limit": PAGE, "offset": len(known)})
            rows = {tuple(uid(item, tag) for tag in tags): item for item in page}
            new = {key: item for key, item in rows.items() if key not in known}
            if not new and len(page) == PAGE:
                # It knows "limit", but not "offset": what comes after would be missed.
                raise ArchiveRefusedError(
                    f"the archive tells only its first {PAGE} entries; QIDO needs its offset parameter"
                )
            known |= new.keys()
            yield from new.values()
            # An archive may have pages shorter than was asked for, so only an empty one is the last.
            if not new:
                return

    def _rows(self, path: str, params: dict[str, Any] | None = None) -> list[Any]:
        """Return the list that an archive answers with; an empty one if it answers with nothing."""
        found = self._http.json(path, params)
        if found is not None and not isinstance(found, list):
            raise ArchiveFailedError("the archive's answer is no list, as QIDO-RS sends; check the URL")
        return found or []


def _text(item: Any, tag: str) -> str | None:
    found = value(item, tag)
    return found.strip() if isinstance(found, str) else None


def _number(item: Any, tag: str) -> float | None:
    """Return a number, which some archives send as a text; None if there is none."""
    try:
        return float(value(item, tag))
    except (TypeError, ValueError):
        return None


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch, size = list[Path](), 0
    for path in paths:
        own = path.stat().st_size
        if batch and size + own > STOW_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += own
    if batch:
        yield batch
