"""The benchmark of several sentences: what it asks, and its record."""

from __future__ import annotations

import pytest

from lsms_rt.bench import sentences
from lsms_rt.bench.records import SENTENCES, rows_of
from lsms_rt.bench.tables import markdown
from lsms_rt.data import demo_engine
from lsms_rt.segmenter import Segmenter


@pytest.mark.slow
def test_both_ways_ask_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLICES": 2, "MATRIX": 128, "COUNTS": (1, 2)}.items():
        monkeypatch.setattr(sentences, name, value)
    asked: list[tuple[str, int]] = []
    for name in ("predict", "predict_series"):
        plain = getattr(Segmenter, name)

        def counted(self: Segmenter, images: object, text: object, _plain=plain, _name=name) -> object:
            asked.append((_name, 1 if isinstance(text, str) else len(text)))  # type: ignore[arg-type]
            return _plain(self, images, text)

        monkeypatch.setattr(Segmenter, name, counted)
    record = sentences.measure(demo_engine(), 1, threads=1)
    # a round to warm up, and one that counts
    for name in ("predict", "predict_series"):
        assert [n for way, n in asked if way == name] == [1, 1, 2, 1, 1] * 2
    rows = rows_of(record)
    assert record["kind"] == SENTENCES
    assert [(row["input"], row["sentences"]) for row in rows] == [
        ("one file", 1), ("one file", 2), ("a series", 1), ("a series", 2),
    ]  # fmt: skip
    for row in rows:
        assert row["ratio"] == pytest.approx(row["one by one, ms"] / row["at once, ms"])
    assert "| a series | 2 |" in markdown(record)
