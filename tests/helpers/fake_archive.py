"""An archive in memory, as httpx sees it: DICOMweb at /dicom-web, and Orthanc's own interface above it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydicom import Dataset, dcmread

BOUNDARY = "a-boundary"
URL = "http://archive.test"
# Called with each request, before or after it has an effect: may raise, or return another answer.
Hook = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class FakeArchive:
    """Holds DICOM files.

    Attributes:
        files: SOPInstanceUID -> content.
        changes: what Orthanc would tell: type and series.
        before: called before a request.
        after: called after one.
        requests: method and path of all that were sent.
        parsed: SOPInstanceUID -> header.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    before: Hook = lambda request: None
    after: Hook = lambda request: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    parsed: dict[str, Dataset] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything."""
        for content in (self.files, self.changes, self.parsed):
            content.clear()

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def add(self, *paths: Path, stable: bool = True) -> None:
        """Put files in, as a scanner does; then their series are stable."""
        series = {self._put(path.read_bytes()).SeriesInstanceUID for path in paths}
        for uid in series if stable else ():
            self.changes.append(("StableSeries", uid))

    def headers(self, modality: str | None = None) -> list[Dataset]:
        """Return the headers of all objects, of one modality if it is given."""
        return [ds for ds in self.parsed.values() if modality in (None, ds.Modality)]

    def sent(self, method: str, pattern: str = "") -> int:
        """Return how many requests there were."""
        return sum(own == method and re.search(pattern, path) is not None for own, path in self.requests)

    def _put(self, content: bytes) -> Dataset:
        ds = dcmread(io.BytesIO(content), stop_before_pixels=True)
        if ds.SOPInstanceUID not in self.files:
            if ds.SeriesInstanceUID not in {other.SeriesInstanceUID for other in self.headers()}:
                self.changes.append(("NewSeries", ds.SeriesInstanceUID))
            self.files[ds.SOPInstanceUID], self.parsed[ds.SOPInstanceUID] = content, ds
        return ds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.path))
        answer = self.before(request) or self._right_answer(request)
        return self.after(request) or answer

    def _right_answer(self, request: httpx.Request) -> httpx.Response:
        path, params = request.url.path, dict(request.url.params)
        if path.startswith("/dicom-web"):
            return self._dicomweb(request, path.removeprefix("/dicom-web").strip("/").split("/"), params)
        return self._orthanc(request, path.strip("/").split("/"), params)

    def _dicomweb(self, request: httpx.Request, parts: list[str], params: dict[str, str]) -> httpx.Response:
        if request.method == "POST":
            kind = request.headers["Content-Type"]
            found = request.content.split(b"--" + kind.rpartition("boundary=")[2].encode())[1:-1]
            for part in found:
                self._put(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
            return httpx.Response(200, json={})
        wanted = dict(zip(("studies", "series", "instances"), parts[1::2], strict=False))
        levels = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
        rows = [ds for ds in self.headers() if all(ds[levels[key]].value == uid for key, uid in wanted.items())]
        if parts[-1] == "metadata":
            return httpx.Response(200, json=[ds.to_json_dict() for ds in rows]) if rows else httpx.Response(404)
        if len(parts) == 4:
            body = b"".join(
                f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + self.files[ds.SOPInstanceUID]
                + b"\r\n" for ds in rows
            )  # fmt: skip
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            return httpx.Response(200, content=body + f"--{BOUNDARY}--".encode(), headers={"Content-Type": kind})
        if "Modality" in params:
            rows = [ds for ds in rows if ds.Modality == params["Modality"]]
        if "SOPInstanceUID" in params:
            rows = [ds for ds in rows if ds.SOPInstanceUID == params["SOPInstanceUID"]]
        if parts[-1] == "series":
            series = [(ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in rows]
            first_ones = dict(reversed(list(zip(series, rows, strict=True))))
            for key, ds in first_ones.items():
                ds.NumberOfSeriesRelatedInstances = series.count(key)
            rows = list(reversed(first_ones.values()))
        first = int(params.get("offset", 0))
        rows = rows[first : first + int(params["limit"])]
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "NumberOfSeriesRelatedInstances")
        found = [Dataset({ds[name].tag: ds[name] for name in names if name in ds}) for ds in rows]
        return httpx.Response(200, json=[ds.to_json_dict() for ds in found])

    def _orthanc(self, request: httpx.Request, parts: list[str], params: dict[str, str]) -> httpx.Response:
        if parts == ["changes"]:
            since = len(self.changes) if "last" in params else int(params["since"])
            rows = [
                {"Seq": n, "ChangeType": kind, "ID": _id(uid)}
                for n, (kind, uid) in enumerate(self.changes, 1) if since < n <= since + int(params.get("limit", 1))
            ]  # fmt: skip
            last = rows[-1]["Seq"] if rows else len(self.changes)
            return httpx.Response(200, json={"Changes": rows, "Last": last, "Done": last == len(self.changes)})
        if parts == ["tools", "lookup"]:
            uid = request.content.decode()
            found = [{"Type": "Instance", "ID": _id(uid)}] if uid in self.files else []
            return httpx.Response(200, json=found)
        rows = [ds for ds in self.headers() if _id(ds.SeriesInstanceUID if parts[0] == "series" else ds.SOPInstanceUID)
                == parts[1]]  # fmt: skip
        if not rows:
            return httpx.Response(404)
        if request.method == "DELETE":
            del self.files[rows[0].SOPInstanceUID], self.parsed[rows[0].SOPInstanceUID]
            return httpx.Response(200, json={})
        if parts[0] == "instances":
            names = ("Manufacturer", "ManufacturerModelName", "StudyInstanceUID")
            return httpx.Response(200, json={name: rows[0].get(name) for name in names})
        names = ("StudyInstanceUID",) if parts[-1] == "study" else ("Modality", "SeriesInstanceUID")
        tags: dict[str, Any] = {name: rows[0][name].value for name in names}
        return httpx.Response(200, json={"MainDicomTags": tags, "Instances": [ds.SOPInstanceUID for ds in rows]})


def _id(uid: str) -> str:
    """Return an identifier as Orthanc makes them."""
    text = hashlib.sha1(uid.encode()).hexdigest()
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))
