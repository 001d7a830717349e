"""Load on a server: a record of bench serve, and a few seconds of the soak test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_async import in_a_thread, run_async

pytest.importorskip("httpx", reason="httpx is not installed; pip install 'lsms-rt[client]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed; pip install 'lsms-rt[serve]'")

from lsms_rt.bench import records
from lsms_rt.bench.options import ServeOptions
from lsms_rt.bench.serve import closed_loop, measure, open_loop, request_of, server
from lsms_rt.bench.soak import kept_in, load, problems, write_phantoms
from lsms_rt.bench.tables import markdown
from lsms_rt.cli.main import main


@pytest.mark.slow
def test_bench_serve(tmp_path: Path, demo_engine: Path) -> None:
    options = ServeOptions(threads=1, seconds=0.3, clients=(1, 2), rounds=2)
    record = in_a_thread(lambda: measure(demo_engine, options, lambda text: None))
    records.write(tmp_path / "r.json", record)
    read = records.read(tmp_path / "r.json")
    assert [row["loop"] for row in read["rows"]] == ["closed"] * 2 + ["open"] * 3
    assert all(row["failed"] == 0 for row in read["rows"])
    faults = read["faults"]
    flood = faults["32 at once to a queue of 4"]
    assert flood["refused"] > 0
    assert flood["answered"] + flood["refused"] == 32
    killed = faults["worker killed during 4 requests"]
    assert killed["failed"] <= 1
    assert killed["answered"] + killed["failed"] == 4
    assert faults["after it"] == {"answered": 1}
    assert read["overhead"]["overhead, ms"] == read["overhead"]["request, ms"] - read["overhead"]["predict, ms"]
    assert f"with httpx a request takes {read['overhead']['request with httpx, ms']:.1f} ms" in markdown(read)
    assert main(["bench", "report", str(tmp_path / "r.json"), "-o", str(tmp_path / "report")]) == 0


@pytest.mark.slow
def test_soak_for_a_few_seconds(tmp_path: Path, demo_engine: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folders = write_phantoms(tmp_path)
    with server(demo_engine, ServeOptions(threads=1), workers=2, queue=16, temporary=temporary) as url:
        sent, sizes = run_async(load(url, folders, 5.0, kill_every=3.0))
        found = problems(sent, sizes, url, temporary)
    assert not kept_in(temporary)
    # In so short a time caches fill.
    assert [line for line in found if not line.startswith("the memory grew")] == []
    assert sent.got["worker killed"] >= 1
    assert sent.got["infer: 200"] > 0


def test_a_soak_that_is_wrong_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt.bench import soak
    from lsms_rt.bench.soak import GROWTH, Load

    class Response:
        status_code, text = 500, "x"

    sent = Load("http://127.0.0.1:9", [])
    assert not sent.expect("infer", Response(), 200)  # type: ignore[arg-type]
    assert sent.wrong == ["infer: 500 x"]
    sent.same("infer", b"one", b"one")
    assert len(sent.wrong) == 1
    sent.same("infer", b"one", b"another")
    assert "another request's answer" in sent.wrong[-1]
    monkeypatch.setattr(soak, "TIDY", 0.0)
    assert soak.left_in(tmp_path) == 0
    (tmp_path / "mask.png").write_bytes(b"x")
    assert soak.left_in(tmp_path) == 1
    assert json.dumps(dict(sent.got)) == '{"infer: 500": 1}'
    assert GROWTH > 0


def test_loops_count_what_is_not_answered() -> None:
    import numpy as np

    body, headers = request_of(np.zeros((16, 16), np.int16))
    closed = run_async(closed_loop("http://127.0.0.1:9", body, headers, 2, 0.1))
    opened = run_async(open_loop("http://127.0.0.1:9", body, headers, 50, 0.1))
    assert closed.failed > 0
    assert opened.failed > 0
    assert not closed.times
    assert closed.row(loop="closed")["answered"] == 0
