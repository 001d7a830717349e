"""Candidates: the bundled engine, with layers made INT8 in memory, asks and records."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from small_dataset import write_dataset

from lsms_rt.calibration.candidate import open_candidates
from lsms_rt.datasets.questions import questions
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.engine import onnxruntime
from lsms_rt.segmenter import Segmenter


@pytest.mark.slow
def test_a_run_holds_answer_inputs_and_logits(demo_engine: Path, tmp_path: Path) -> None:
    question = next(questions(read_annotations(write_dataset(tmp_path))))
    candidates = open_candidates(demo_engine, threads=1)
    first, second = candidates.run({}, [question, question])
    # The sentence is encoded once.
    assert (first.feeds.keys(), second.feeds.keys()) == ({"text", "image"}, {"image"})
    with Segmenter(demo_engine, threads=1) as segmenter:
        assert first.answer.pixels == segmenter.predict(question.ct, question.row.sentence).mask.sum()
    assert first.logits.shape == (1, 256, 256)
    np.testing.assert_array_equal(first.logits, second.logits)
    layer = candidates.layers["image"][0]
    (changed,) = candidates.run({"image": {layer.name: 1.0}}, [question])
    assert 0 < np.abs(changed.logits - first.logits).max() < np.inf


@pytest.mark.slow
def test_an_unchanged_graph_is_opened_once(demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = next(questions(read_annotations(write_dataset(tmp_path))))
    opened, session = [], onnxruntime._session
    monkeypatch.setattr(onnxruntime, "_session", lambda *args: opened.append(args[2]) or session(*args))
    candidates = open_candidates(demo_engine, threads=1)
    image, text = ({graph: {candidates.layers[graph][0].name: 1.0}} for graph in ("image", "text"))
    logits = [next(candidates.run(ranges, [question])).logits for ranges in (image, {}, text, image, {}, text)]
    # The first opens the text graph for all of them, the second the image graph.
    assert [name[:5] for name in opened] == ["text.", "image", "image", "text.", "image", "text."]
    # Each in its own graphs, whatever was asked before.
    for before, again in zip(logits[:3], logits[3:], strict=True):
        np.testing.assert_array_equal(before, again)
    assert all(np.abs(a - b).max() > 0 for a, b in pairwise(logits))
