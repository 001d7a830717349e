"""Workers on an archive in memory, with a run that copies results which were computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed; pip install 'lsms-rt[worker]'")
pytest.importorskip("yaml", reason="PyYAML is not installed; pip install 'lsms-rt[worker]'")

from worker_site import Site

from lsms_rt.archive_worker import ledger as ledger_module
from lsms_rt.archive_worker import loop as loop_module
from lsms_rt.archive_worker import work as work_module
from lsms_rt.runs import run as run_module
from lsms_rt.runs.jobs import Job
from lsms_rt.runs.report import Report
from lsms_rt.runs.request import Request


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.folder.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for module in (loop_module, ledger_module):
        monkeypatch.setattr(module, "delay", lambda attempt, longest=0.0: 0.0)
    yield made
    made.close()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """A run that computes a series once, and then copies its results: as the real one, the same for the same images."""
    kept = tmp_path_factory.mktemp("computed")
    reports: dict[tuple[Any, ...], tuple[Report, Path]] = {}

    def run(segmenter: Any, jobs: Sequence[Job], request: Request) -> Report:
        assert request.output is not None
        (job,) = jobs
        files = sorted(path.read_bytes() for path in job.path.iterdir())
        key = (*files, job.texts, request.sc)
        if key not in reports:
            report = run_module.run(segmenter, jobs, request)
            reports[key] = report, kept / str(len(reports))
            shutil.copytree(request.output, reports[key][1])
        else:
            shutil.copytree(reports[key][1], request.output)
        return reports[key][0]

    return run


@pytest.fixture(autouse=True)
def runs_are_copied(computed: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "run", computed)
