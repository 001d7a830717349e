"""Training slices on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from training_slices import two_squares

from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.training.phantom_slices import write_phantom_slices
from lsms_rt.training.slices import Slices, Writer, is_complete, read_slices


def test_what_is_written_is_read(tmp_path: Path) -> None:
    slices = two_squares()
    writer = Writer(tmp_path, 1, 96, organs=False)
    writer.add(slices.records[0], hu=slices.hu[0], index=slices.index[0])
    assert not is_complete(tmp_path)
    writer.close(complete=False)
    found = read_slices(tmp_path)
    assert found.records == slices.records
    assert found.organs is None
    assert not found.complete
    np.testing.assert_array_equal(found.hu, slices.hu)
    np.testing.assert_array_equal(found.index, slices.index)


def test_phantom_slices_are_those_of_the_generator(phantom_slices: Slices) -> None:
    assert (len(phantom_slices), phantom_slices.size, phantom_slices.complete) == (6, 96, True)
    assert {record.case for record in phantom_slices.records} == {"seed 77", "seed 78"}
    case = generate_case(78, 3, 96)
    for number, item in enumerate(case.slices, 3):
        np.testing.assert_array_equal(phantom_slices.hu[number], item.hu)
        assert phantom_slices.organs is not None
        np.testing.assert_array_equal(phantom_slices.organs[number], item.labels)
        record = phantom_slices.records[number]
        assert record.phase == case.phase
        assert record.lesions is not None
        for region, lesion in enumerate(item.lesions, 1):
            np.testing.assert_array_equal(phantom_slices.index[number] == region, lesion.mask)
            assert record.lesions[region - 1].diameter_mm == lesion.diameter_mm


def test_a_complete_folder_is_kept(tmp_path: Path) -> None:
    write_phantom_slices(tmp_path, [5], 2, 64, 1)
    before = (tmp_path / "hu.npy").stat().st_mtime_ns
    write_phantom_slices(tmp_path, [6], 2, 64, 1)
    assert (tmp_path / "hu.npy").stat().st_mtime_ns == before
