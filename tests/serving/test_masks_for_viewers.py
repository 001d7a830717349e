"""Masks for viewers have the grid of the image, so that each slice's mask is drawn on that slice."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from lsms_rt.ct_slice import slice_from_array
from lsms_rt.serving.volume import IMAGE, mask_name, write_volume
from lsms_rt.serving.work import _write_masks
from lsms_rt.writing.answer import Answer


def answer(index: int, sentence: int) -> Answer:
    ct = slice_from_array(np.zeros((20, 30), np.float32), spacing_mm=(1.0, 1.0), side_known=True, source="a slice")
    mask = np.zeros((20, 30), bool)
    mask[index, sentence] = True
    record = {"index": index, "sentence": sentence, "number": index}
    return Answer(ct=ct, mask=mask, text=f"sentence {sentence}", record=record)


def test_a_slice_without_an_answer_keeps_its_place(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    write_volume(tmp_path / IMAGE, np.zeros((4, 20, 30), np.int16), affine)
    output = tmp_path / "job"
    output.mkdir()
    # Slice 0 has no answer, slice 2 one to the second sentence only.
    _write_masks(tmp_path / IMAGE, output, [[], [answer(1, 1), answer(1, 2)], [answer(2, 2)], [answer(3, 1)]], 2)
    for sentence, slices in ((1, [1, 3]), (2, [1, 2])):
        volume = nibabel.load(output / mask_name(sentence))
        np.testing.assert_allclose(volume.affine, affine)
        columns, rows, numbers = np.nonzero(np.asarray(volume.dataobj))
        assert (columns.tolist(), rows.tolist(), numbers.tolist()) == ([sentence] * 2, slices, slices)
