"""Workers as processes, with a real Orthanc: killed, stopped, polling by QIDO alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dciodvfy
import pytest
from orthanc import free_port, orthanc
from worker_faults import faults
from worker_series import rules_text, uids, write_series

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("Orthanc") and Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists()),
        reason="Orthanc is not installed; apt-get install orthanc orthanc-dicomweb",
    ),
]
WAIT_S = 300.0


def test_whatever_is_killed_every_series_has_its_result_once(tmp_path: Path) -> None:
    figures = faults(tmp_path / "site", series=6, kills=2, seed=5, limit_s=WAIT_S, retry_s=0.5)
    assert figures["problems"] == []
    assert figures["states"] == {"done": 4, "skipped": 1, "dead": 1}
    assert (figures["kills"], figures["kills of Orthanc"]) == (2, 2)


def test_a_worker_that_polls_by_qido_finishes_its_series_when_it_is_stopped(tmp_path: Path) -> None:
    import httpx

    audit, tmp = tmp_path / "state" / "audit.jsonl", tmp_path / "tmp"
    tmp.mkdir()
    with orthanc(tmp_path / "orthanc") as archive:
        for path in write_series(tmp_path / "in", "a", 4):
            archive.store(path)
        rules, port = tmp_path / "rules.yaml", free_port()
        rules.write_text(rules_text(archive.port, orthanc=False, also="sc"))
        command = [sys.executable, "-m", "lsms_rt.cli", "worker", str(rules), "--metrics-port", str(port)]
        worker = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp)}, stderr=subprocess.PIPE)
        try:
            end = time.monotonic() + WAIT_S
            while not (audit.exists() and '"taken"' in audit.read_text()):
                assert time.monotonic() < end, "no series was taken"
                assert worker.poll() is None, worker.communicate()[1]
                time.sleep(0.02)
            told = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(WAIT_S) == 0
        finally:
            worker.kill()
            worker.communicate()
        events = [json.loads(line)["event"] for line in audit.read_text().splitlines()]
        assert events == ["started", "taken", "stored", "stopped"]
        assert "lsms_worker_last_look" in told
        assert [path for path in tmp.iterdir() if path.name != ".ses"] == []
        series = archive.request("/series?expand")
        stored = {row["MainDicomTags"]["Modality"]: row for row in series}
        assert sorted(stored) == ["CT", "OT", "SEG", "SR"]
        assert len({row["ParentStudy"] for row in series}) == 1
        study = archive.request(f"/studies/{series[0]['ParentStudy']}")
        assert study["MainDicomTags"]["StudyInstanceUID"] == uids("a")[0]
        (tmp_path / "report.dcm").write_bytes(archive.content(f"/instances/{stored['SR']['Instances'][0]}/file"))
    dciodvfy.check(tmp_path / "report.dcm", "Comprehensive3DSR")
