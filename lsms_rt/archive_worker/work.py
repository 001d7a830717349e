"""What is done with one series: asked about, fetched, segmented, and its results stored in its study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt import __version__
from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError, MachineError
from lsms_rt.runs.jobs import Job
from lsms_rt.runs.report import Report
from lsms_rt.runs.request import Request
from lsms_rt.runs.run import run
from lsms_rt.segmenter import Segmenter
from lsms_rt.serving.private_folder import PrivateFolder
from lsms_rt.writing.dicom_object import MAKER

from .dicomweb import DicomWeb, Series
from .fetched import check_fetched
from .ledger import DONE, QUEUED, SKIPPED, Ledger, Object, Row
from .metrics import Metrics
from .orthanc import Orthanc
from .retry import ArchiveFailedError, ArchiveRefusedError
from .rules import MODALITIES, Facts, Rule, Rules
from .time_limit import TimeOverError, time_limit

PREFIX = "lsms-rt-worker-"
# of the disk for temporary files; with twice the size of the images, once they are there
MIN_FREE = 64 * 2**20
# seconds for the conditions of all rules
MATCH_S = 2.0
REPORT, OBJECTS = "report.dcm", ("segmentation.dcm", "report.dcm", "key.dcm", "rtstruct.dcm")
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


class DiskFullError(MachineError):
    """The disk for temporary files is full."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended that did not fail.

    Attributes:
        state: of the series: DONE, SKIPPED, or QUEUED if it still grows.
        event: what the audit log calls it.
        reason: why, if it is not done.
        count: number of its images.
        key: of its result; "" if there is none.
        facts: numbers for the audit log.
    """

    state: str
    event: str
    reason: str = ""
    count: int
    key: str = ""
    facts: dict[str, int]


class Work:
    """Does one series after the other.

    Args:
        segmenter: the engine.
        rules: what to do.
        archive: the archive.
        orthanc: its own interface, to delete results that are superseded; None to keep them.
        ledger: knows the series.
        metrics: measure the stages.
    """

    def __init__(
        self, segmenter: Segmenter, rules: Rules, archive: DicomWeb, orthanc: Orthanc | None, ledger: Ledger,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._segmenter, self._rules, self._archive, self._orthanc = segmenter, rules, archive, orthanc
        self._ledger, self._metrics = ledger, metrics

    def do(self, row: Row) -> Outcome:
        """Do a series that was taken.

        Raises:
            ArchiveError: the archive failed or refused.
            LsmsError: the series cannot be read or segmented, or this machine cannot do it.
        """
        study, series = row.series.study, row.series.uid
        instances = self._archive.instances(study, series)
        count = len(instances)
        if not instances:
            return _skipped(count, "it is not in the archive any more")
        if count != row.series.count:
            return Outcome(state=QUEUED, event="growing", reason="it still grows", count=count, facts={"images": count})
        facts = self._archive.facts(study, series, instances[0])
        if facts.modality not in MODALITIES:
            # Some archives answer with all series, whatever they are asked.
            return _skipped(count, "it is not CT")
        if self._ledger.is_own(series) or facts.manufacturer == facts.model == MAKER:
            return _skipped(count, "it is a result")
        try:
            with time_limit(MATCH_S):
                match = self._rules.match(facts)
        except TimeOverError as error:
            raise InputError(
                f"the rules' series_description takes longer than {MATCH_S:g} s to compare; write a simpler regular "
                "expression, without a repetition inside another one"
            ) from error
        if match is None:
            return _skipped(count, "no rule matches")
        number, rule = match
        key = sha256_of_json([__version__, self._segmenter.digest, rule.sentences, self._rules.also, instances])
        stored = [one for one in self._ledger.objects(row) if one.key == key]
        told = {"rule": number, "images": count}
        if stored and all(self._archive.has(study, one.uid) for one in stored):
            # By a worker that was killed before it could say so, or before the series was looked at again.
            told |= {"objects": len(stored), "superseded": self._supersede(row, key)}
            event = "unchanged" if row.key == key else "stored"
            return Outcome(state=DONE, event=event, count=count, key=key, facts=told)
        told |= self._segment(row, rule, key, facts, instances)
        return Outcome(state=DONE, event="stored", count=count, key=key, facts=told)

    def _segment(self, row: Row, rule: Rule, key: str, facts: Facts, instances: Sequence[str]) -> dict[str, int]:
        """Fetch a series, segment it and store the results; return numbers for the audit log."""
        folder = PrivateFolder(PREFIX)
        try:
            images, results = folder.path / "images", folder.path / "results"
            images.mkdir()
            self._check_room(folder.path)
            with self._metrics.timed("fetch"):
                self._archive.fetch(row.series.study, row.series.uid, images)
            check_fetched(images, row.series, instances)
            self._check_room(folder.path, 2 * sum(path.stat().st_size for path in images.iterdir()))
            request = Request(
                output=results, series=row.series.uid, seg=True, sr=True, sc="sc" in self._rules.also,
                rtstruct="rtstruct" in self._rules.also, texts=True,
            )  # fmt: skip
            with self._metrics.timed("predict"):
                try:
                    report = run(self._segmenter, [Job(path=images, texts=rule.sentences)], request)
                except MachineError:
                    self._check_room(folder.path)
                    raise
            files = self._files(report, folder.path)
            self._check_unchanged(row.series, facts, instances)
            with self._metrics.timed("store"):
                superseded = self._store(row, key, results, files)
        finally:
            folder.close()
        return {
            "objects": len(files),
            "found": sum(bool(record["found"]) for record in report.results),
            "without_result": len(report.not_read) + len(report.not_computed),
            "superseded": superseded,
        }

    def _check_unchanged(self, series: Series, facts: Facts, instances: Sequence[str]) -> None:
        """Raise if a series is not in the archive as it was before it was fetched.

        Where it was another patient's and was deleted or corrected meanwhile, nothing of that patient must come back.
        """
        now = self._archive.instances(series.study, series.uid)
        if now != list(instances) or self._archive.facts(series.study, series.uid, instances[0]) != facts:
            raise ArchiveFailedError("the series has changed while it was segmented")

    def _files(self, report: Report, folder: Path) -> list[dict[str, Any]]:
        """Return the objects of a run, the report last of those that are always there; all of them, or an error."""
        if report.error is not None:
            raise report.error
        # What is stored stays incomplete, so not for want of memory.
        if report.machine_error is not None:
            raise report.machine_error
        missing = [reason for reason in report.not_written if reason.startswith(OBJECTS)]
        files = [file for file in report.files if "sop_instance_uid" in file]
        if missing or REPORT not in [file["file"] for file in files]:
            self._check_room(folder)
            raise InputError("; ".join(missing or report.not_written) or "there is no report")
        return files

    def _store(self, row: Row, key: str, results: Path, files: Sequence[dict[str, Any]]) -> int:
        """Store objects that the archive does not have yet; return the number of older ones that were deleted."""
        study = row.series.study
        objects = [
            Object(uid=file["sop_instance_uid"], kind=file["sop_class_uid"], series=file["series_uid"], key=key)
            for file in files
        ]
        if self._orthanc is None:
            self._name_predecessors(row, key, results / REPORT)
        self._ledger.plan(row, objects)
        absent = [
            results / file["file"]
            for file, one in zip(files, objects, strict=True)
            if not self._archive.has(study, one.uid)
        ]
        agreed = self._archive.store(study, absent)
        lost = sum(not self._archive.has(study, one.uid) for one in objects)
        if lost:
            kind = ArchiveFailedError if agreed else ArchiveRefusedError
            raise kind(f"the archive did not store {lost} of {len(objects)} objects")
        return self._supersede(row, key)

    def _supersede(self, row: Row, key: str) -> int:
        """Delete the objects of older results, where that is asked for and possible; return how many there were."""
        if self._orthanc is None:
            return 0
        deleted = 0
        for one in self._ledger.objects(row):
            if one.key != key:
                deleted += self._orthanc.delete(row.series.study, one.uid)
                self._ledger.forget(one.uid)
        return deleted

    def _name_predecessors(self, row: Row, key: str, path: Path) -> None:
        """Let a report name the older ones that it takes the place of (PS3.3, C.17.2)."""
        from pydicom import Dataset, dcmread

        older = [one for one in self._ledger.objects(row) if one.key != key and one.kind == REPORT_CLASS]
        if not older:
            return
        ds, study = dcmread(path), Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = row.series.study, []
        for one in older:
            series, instance = Dataset(), Dataset()
            instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = one.kind, one.uid
            series.SeriesInstanceUID, series.ReferencedSOPSequence = one.series, [instance]
            study.ReferencedSeriesSequence.append(series)
        ds.PredecessorDocumentsSequence = [study]
        ds.save_as(path, enforce_file_format=True)

    def _check_room(self, folder: Path, more: int = 0) -> None:
        free = shutil.disk_usage(folder).free
        if free < MIN_FREE + more:
            raise DiskFullError(
                f"the disk for temporary files has {free >> 20} MiB free of the {(MIN_FREE + more) >> 20} that are "
                "needed; make room, or set TMPDIR"
            )


def _skipped(count: int, reason: str) -> Outcome:
    return Outcome(state=SKIPPED, event="skipped", reason=reason, count=count, facts={"images": count})
