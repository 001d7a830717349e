"""What a build knows about its accuracy gate: overlap with the calibration, and earlier refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_answers import answer, compared
from small_dataset import write_dataset

from lsms_rt.calibration.gate import PER_CASE, GateResult, gate_data
from lsms_rt.calibration.lesions import LesionsCompared, lesion_wise
from lsms_rt.calibration.policy import MIN_CASES, failures
from lsms_rt.calibration.recipe import Recipe, case_digest
from lsms_rt.errors import InputError
from lsms_rt.export.gate import REFUSALS, _refusal, earlier_refusals, held_out_data, write_report
from lsms_rt.export.options import BuildOptions, GateOptions, report_path

SALT = "cd" * 32


def recipe(*case_ids: str) -> Recipe:
    return Recipe(
        weights_digest="ab" * 32, preset="tiny", image_size=64, method="minmax", layers={"image": {"x": 1.5}},
        kept={}, macs_share=0.5, max_dice_drop=0.01, slices_digest=SALT,
        cases=[case_digest(case_id, SALT) for case_id in case_ids],
    )  # fmt: skip


def test_a_case_that_was_used_to_calibrate_proves_nothing(tmp_path: Path) -> None:
    """Also if its images are other files than those of the calibration: the same patient, encoded again."""
    options = GateOptions(dataset=write_dataset(tmp_path / "data", splits=("test", "test", "val")))
    with pytest.raises(
        InputError, match="1 of the gate's 2 cases have the case_id of a case that was used to calibrate"
    ):
        held_out_data(options, recipe("case 1", "case 2"), tmp_path, 64)
    assert len(held_out_data(options, recipe("case 2"), tmp_path, 64).rows) == 12
    assert len(held_out_data(options, None, tmp_path, 64).rows) == 12


def test_the_gate_asks_about_many_cases() -> None:
    assert GateOptions().sentences // PER_CASE >= MIN_CASES >= 40


def test_the_rows_are_spread_over_the_cases(tmp_path: Path) -> None:
    data = gate_data(write_dataset(tmp_path / "data", ("test",) * 5, slices=4), "test", 5, tmp_path, 64)
    assert len(data.case_ids) == 5


def test_a_refusal_leaves_the_report_of_the_engine_that_passed(tmp_path: Path) -> None:
    output = tmp_path / "x.engine"
    for report, passed, refused in (
        (None, "x.report.html", "x.refused.html"),
        (tmp_path / "why.html", "why.html", "why.refused.html"),
        (tmp_path / "v1.2", "v1.2", "v1.2.refused.html"),
    ):
        options = BuildOptions(precision="fp16", report=report)
        assert report_path(options.report, output) == tmp_path / passed
        assert report_path(options.report, output, refused=True) == tmp_path / refused


@pytest.mark.parametrize(("lost", "advised"), [(1, True), (10, False)])
def test_a_refusal_advises_more_sentences_where_they_may_help(lost: int, advised: bool) -> None:
    pairs = [(answer(i, 0.5), answer(i, 0.0 if i < lost else 0.5)) for i in range(100)]
    comparison = compared(*pairs)
    none = lesion_wise([], [])
    lesions = LesionsCompared(reference=none, engine=none)
    result = GateResult(comparison, failures(comparison, 0.01), "", [], [], pairs, lesions)
    assert ("ask more sentences (--gate-sentences)" in _refusal(result, "fp16", 0.01, Path("x.html"))) == advised


def test_refusals_are_counted(tmp_path: Path) -> None:
    report = tmp_path / "new" / "x.refused.html"
    assert earlier_refusals(report) == 0
    for count in (1, 2):
        write_report(report, "<html></html>\n" + REFUSALS.format(earlier_refusals(report) + 1))
        assert earlier_refusals(report) == count
    # It shows slices of patients.
    assert [path.stat().st_mode & 0o077 for path in (report, report.parent)] == [0, 0]
    # The report of an engine that passed, or of an older version.
    report.write_text("<html></html>")
    assert earlier_refusals(report) == 0
