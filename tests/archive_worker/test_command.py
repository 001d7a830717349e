"""``lsms-rt worker status|retry``, its options, and what it says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from socketserver import BaseServer

import httpx
import pytest
from worker_series import damage, uids
from worker_site import Site

from lsms_rt.archive_worker.metrics import Metrics
from lsms_rt.cli.main import main
from lsms_rt.errors import InputError


@pytest.fixture
def rules(site: Site) -> Path:
    """A site with a series that has its result, and one that was given up."""
    bad = site.series("bad")
    for path in bad:
        damage(path)
    site.archive.add(*site.series("a"), *bad)
    site.work()
    return site.folder / "rules.yaml"


@pytest.mark.slow
def test_status_tells_what_was_given_up_and_retry_queues_it(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "status", str(rules)]) == 5
    said = capsys.readouterr().out
    assert said.startswith("0 queued, 0 running, 1 done, 0 skipped, 1 dead\nrow ")
    assert "damaged or truncated pixels" in said
    assert uids("bad")[1] not in said
    assert main(["worker", "retry", str(rules), "--row", "77"]) == 2
    assert main(["worker", "retry", str(rules)]) == 0
    assert "1 queued again" in capsys.readouterr().out
    assert main(["worker", "status", str(rules), "--json", "--names"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"queued": 1, "running": 0, "done": 1, "skipped": 0, "dead": 0}
    assert found["series"][0]["series"] == uids("bad")[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["status", "more", "RULES"], "3 arguments; give RULES.yaml"),
        (["look", "RULES"], "2 arguments"),
        (["status", "RULES"], "no worker has run"),
        (["RULES", "--names"], "--names is of worker status"),
    ],
)
def test_wrong_arguments(
    site: Site, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    site.rules()
    path = str(site.folder / "rules.yaml")
    assert main(["worker", *(path if word == "RULES" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_library_is_told_with_its_command(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "yaml" else find(name))
    assert main(["worker", str(site.folder / "rules.yaml")]) == 3
    assert "worker needs yaml; pip install 'lsms-rt[worker]'" in capsys.readouterr().err


def test_metrics_are_told_on_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # How often the server looks whether to stop; it would be every 0.5 s.
    monkeypatch.setattr(BaseServer.serve_forever, "__defaults__", (0.02,))
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    metrics = Metrics(0, lambda: {"queued": 3})
    try:
        metrics.count("stored")
        metrics.looked(failed=True)
        with metrics.timed("fetch"):
            pass
        text = httpx.get(f"http://127.0.0.1:{metrics.port}/metrics", trust_env=False).text
        assert metrics._server.server_address[0] == "127.0.0.1"
        with pytest.raises(InputError, match="give another port"):
            Metrics(metrics.port)
    finally:
        metrics.close()
    assert 'lsms_worker_series_total{outcome="stored"} 1.0' in text
    assert 'lsms_worker_ledger{state="queued"} 3.0' in text
    assert "lsms_worker_archive_faults_total 1.0" in text
    assert 'lsms_worker_seconds_count{stage="fetch"} 1.0' in text


def test_the_last_fault_run_lost_and_doubled_nothing() -> None:
    record = json.loads((Path(__file__).parents[2] / "docs/worker_faults.json").read_text())
    assert record["problems"] == []
    assert (record["series"], record["kills"], record["kills of Orthanc"], record["full disks"]) == (50, 20, 2, 1)
    assert record["states"] == {"done": 48, "skipped": 1, "dead": 1}
    assert record["events"]["started"] >= 22
