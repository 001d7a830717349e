"""Candidates: the bundled engine, with layers made INT8 in memory, asks and records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_dataset import write_dataset

from lsms_rt.calibration.candidate import open_candidates
from lsms_rt.datasets.questions import questions
from lsms_rt.datasets.refhl import read_annotations
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
