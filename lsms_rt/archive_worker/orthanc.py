"""What Orthanc can do beyond DICOMweb: tell what has changed, and delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lsms_rt.writing.dicom_object import MAKER

from .dicomweb import UID, Series
from .http import Http
from .retry import ArchiveDeniedError, ArchiveFailedError, ArchiveRefusedError

PAGE = 500
ID = re.compile(r"[0-9a-f-]{44}")
NEW, STABLE = "NewSeries", "StableSeries"
NOT_ORTHANC = "the answer is not as Orthanc answers; check archive: orthanc"


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that happened to a CT series.

    Attributes:
        number: of the change, in their order.
        stable: whether no image has come for a while; otherwise the first one has just come.
        series: the series, as it is now.
    """

    number: int
    stable: bool
    series: Series


class Orthanc:
    """Orthanc's own interface.  All methods raise ArchiveError.

    Args:
        http: speaks with it.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def last(self) -> int:
        """Return the number of the last change."""
        return _last(self._http.json("/changes", {"last": ""}))

    def changes(self, since: int) -> Iterator[tuple[int, list[Change]]]:
        """Yield pages of changes after number ``since``, each with the number up to which it tells."""
        done = False
        while not done:
            page = self._http.json("/changes", {"since": since, "limit": PAGE})
            since, done = _last(page), bool(page.get("Done"))
            # Of one series the page's last change is enough.
            rows = {key: (number, kind) for number, kind, key in map(_row, page["Changes"]) if kind in (NEW, STABLE)}
            found = [
                Change(number=number, stable=kind == STABLE, series=series)
                for key, (number, kind) in rows.items()
                if (series := self._series(key)) is not None
            ]
            yield since, found

    def delete(self, study: str, instance: str) -> bool:
        """Delete an object of ours, by the UIDs of its study and its own; return whether it was there.

        Raises:
            ArchiveRefusedError: it is not an object of this package.
        """
        found = self._http.json("/tools/lookup", method="POST", body=instance) or []
        keys = [str(row["ID"]) for row in found if row.get("Type") == "Instance" and ID.fullmatch(str(row["ID"]))]
        deleted = False
        for key in keys:
            tags = self._http.json(f"/instances/{key}/simplified-tags")
            # A copy in another study is not ours to delete: somebody put it there.
            if tags.get("StudyInstanceUID") != study:
                continue
            if (tags.get("Manufacturer"), tags.get("ManufacturerModelName")) != (MAKER, MAKER):
                raise ArchiveRefusedError("an object that this package did not make is not deleted")
            self._http.json(f"/instances/{key}", method="DELETE")
            deleted = True
        return deleted

    def _series(self, key: str) -> Series | None:
        """Return a CT series; None for another one, and for one that is there no more."""
        if not ID.fullmatch(key):
            return None
        try:
            series = self._http.json(f"/series/{key}")
            if series["MainDicomTags"].get("Modality") != "CT":
                return None
            study = self._http.json(f"/series/{key}/study")["MainDicomTags"]["StudyInstanceUID"]
            uid, count = series["MainDicomTags"]["SeriesInstanceUID"], len(series["Instances"])
        except ArchiveDeniedError:
            raise
        except ArchiveRefusedError:
            return None
        except (KeyError, TypeError) as error:
            raise ArchiveFailedError(NOT_ORTHANC) from error
        # One that no address can be made of is told by QIDO, if at all.
        return Series(study=study, uid=uid, count=count) if UID.fullmatch(study) and UID.fullmatch(uid) else None


def _row(change: Any) -> tuple[int, str, str]:
    """Return number, type and resource of a change."""
    try:
        return int(change["Seq"]), str(change["ChangeType"]), str(change["ID"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveFailedError(NOT_ORTHANC) from error


def _last(page: Any) -> int:
    if not isinstance(page, dict) or not isinstance(page.get("Last"), int) or not isinstance(page.get("Changes"), list):
        raise ArchiveFailedError(NOT_ORTHANC)
    return int(page["Last"])
