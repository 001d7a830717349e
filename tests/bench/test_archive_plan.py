"""The plan for an archive is arithmetic over committed records."""

from __future__ import annotations

from typing import Any

from lsms_rt.bench.archive import RESULTS, Archive, plan
from lsms_rt.bench.records import read

PARTS: dict[str, Any] = {
    "cpu_ms_a_slice": {"reading": {"p50": 6.0}, "engine": {"p50": 99.0}, "writing": {"p50": 2.0}},
    "bytes_read_a_slice": 5e5, "bytes_written_a_slice": 5e5, "device": {"processor": "a CPU"}, "commit": "a1",
}  # fmt: skip
MODELS: dict[str, Any] = {
    "rows": [{"preset": "tiny", "batch": 4, "ours": {"p50": 8.0}}], "device": {"gpu": "a GPU"}, "commit": "b2",
}  # fmt: skip


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "][1:]


def test_a_slice_costs_its_steps() -> None:
    """3 600 000 slices: 8 ms of a core and 2 of the GPU, one after the other."""
    archive = Archive(series=36_000, slices=100, gpus=1, cores=16, disk_mb_s=2000, price=2.0)
    one, five = rows(plan(archive, PARTS, MODELS))
    assert one == ["tiny, 4", "2.00", "1", "10.0", "reading and writing", "20%", "0.56"]
    assert five == ["tiny, 4", "2.00", "5", "2.0", "reading and writing", "100%", "0.11"]


def test_a_slow_disk_is_the_bottleneck() -> None:
    text = plan(Archive(series=36_000, slices=100, gpus=1, disk_mb_s=50), PARTS, MODELS)
    assert [row[3:5] for row in rows(text)] == [["20.0", "storage"]] * 2
    assert "1800 GB are read and 1800 GB written, 20.0 h at 50 MB/s" in text


def test_the_committed_records_are_planned_with() -> None:
    parts, models = read(RESULTS / "cpu" / "archive.json"), read(RESULTS / "nvidia-h200" / "models_timed.json")
    assert len(rows(plan(Archive(), parts, models))) >= len(models["rows"])
