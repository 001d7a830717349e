"""Workers on an archive in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fake_archive import URL, FakeArchive
from fake_segmenter import fake_segmenter
from worker_series import write_series

from lsms_rt.archive_worker.audit import Audit
from lsms_rt.archive_worker.dicomweb import DicomWeb
from lsms_rt.archive_worker.feed import Feed
from lsms_rt.archive_worker.http import Http, Login
from lsms_rt.archive_worker.ledger import Ledger
from lsms_rt.archive_worker.loop import Loop
from lsms_rt.archive_worker.metrics import Metrics
from lsms_rt.archive_worker.orthanc import Orthanc
from lsms_rt.archive_worker.rules import Rules, read_rules
from lsms_rt.archive_worker.work import Work

RULES = f"""
archive: {{dicomweb: '{URL}/dicom-web', orthanc: '{URL}'}}
engine: demo
start: all
poll_s: 0.1
quiet_s: 0
rules:
  - series_description: liver
    sentences: the lesion in the left lobe of the liver
"""


class QuickLedger(Ledger):
    """One that does not wait for the disk: no test takes the power away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._base.execute("PRAGMA synchronous = OFF")


@dataclass
class Site:
    """An archive, rules, and workers that come and go.

    Attributes:
        folder: of the rules and the state.
        archive: the archive.
        opened: what is to be closed at the end.
    """

    folder: Path
    archive: FakeArchive = field(default_factory=FakeArchive)
    opened: list[Any] = field(default_factory=list)

    def rules(self, text: str = RULES) -> Rules:
        path = self.folder / "rules.yaml"
        path.write_text(text)
        # Less than the least that a file may say.
        return replace(read_rules(path), poll_s=0.01)

    def series(self, name: str, slices: int = 2, first: int = 0, **header: Any) -> list[Path]:
        return write_series(self.folder / "in", name, slices, first, **header)

    def worker(self, text: str = RULES, make: Callable[[Path], Ledger] = QuickLedger) -> Loop:
        """Return a worker that was started now."""
        rules = self.rules(text)
        ledger = make(rules.state)
        self.opened.append(ledger)
        ledger.begin(rules.dicomweb, rules.fingerprint)
        audit = Audit(rules.state)
        transport = self.archive.transport
        archive = DicomWeb(Http(rules.dicomweb, Login(), transport=transport))
        orthanc = None if rules.orthanc is None else Orthanc(Http(rules.orthanc, Login(), transport=transport))
        metrics = Metrics(None)
        feed = Feed(rules, archive, orthanc, ledger)
        work = Work(_segmenter(), rules, archive, orthanc if rules.replace else None, ledger, metrics)
        self.opened.append(audit)
        return Loop(rules, feed, ledger, work, audit, metrics)

    def work(self, text: str = RULES) -> None:
        """Let a new worker do all that there is to do."""
        self.worker(text).run(once=True)
        self.close()

    def kill(self) -> None:
        """Let the lock of the last worker end, as the system does when it is killed."""
        for one in self.opened:
            if isinstance(one, Ledger) and one._owner is not None:
                os.close(one._owner._lock)
                one._owner = None

    def close(self) -> None:
        """Close what was opened."""
        while self.opened:
            self.opened.pop().close()

    @property
    def ledger(self) -> Ledger:
        self.opened.append(QuickLedger(self.rules().state))
        return self.opened[-1]

    @property
    def audit(self) -> str:
        return (self.folder / "rules.state" / "audit.jsonl").read_text()

    def states(self) -> dict[str, int]:
        return {state: number for state, number in self.ledger.counts().items() if number}


@cache
def _segmenter() -> Any:
    return fake_segmenter()
