"""``lsms-rt convert``, and what the other commands make of its data sets."""

from __future__ import annotations

import json
from pathlib import Path

import convert_sources as sources
import numpy as np
import pytest
from command_line import refused, run

SEEDS = [11, 12, 13, 15, 17]


def test_convert_prints_what_it_wrote(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = sources.write_nnunet(tmp_path / "source", SEEDS, decathlon=True)
    arguments = ("convert", "nnunet", str(source), "-o", str(tmp_path / "data"))
    code, out, err = run(capsys, *arguments, "--limit", "3", "--slices-per-case", "2")
    assert code == 0, err
    assert "3 scans" in out and "true of nothing" in out
    facts = json.loads((tmp_path / "data/dataset.json").read_text())
    assert (facts["scans"], facts["slices_per_case"]) == (3, 2)
    assert str(tmp_path) not in json.dumps(facts)
    refused(capsys, 2, "not empty", *arguments)


def test_scans_that_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = sources.write_nnunet(tmp_path / "source", SEEDS)
    for seed in SEEDS[:2]:
        (source / f"imagesTr/liver_{seed}_0000.nii.gz").unlink()
    arguments = ("convert", "nnunet", str(source), "-o", str(tmp_path / "data"))
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "liver_11: imagesTr/liver_11_0000.nii.gz: no such file" in err and "liver_12: " in err
    code, out, err = run(capsys, *arguments, "--skip-bad")
    assert code == 5
    assert "3 scans" in out
    assert "left out: liver_12: " in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nnunet", "m3d-refseg", "rexgroundingct", "seg"])
def test_a_converted_set_is_evaluated_and_prepared_for_training(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.training.prepare import write_dataset_slices

    source, data = tmp_path / "source", tmp_path / "data"
    if kind == "seg":
        pytest.importorskip("highdicom")
        for seed in SEEDS:
            images = sources.write_series(source / f"P{seed}", seed, f"P{seed}")
            sources.write_seg_of(source / f"{seed}.dcm", images, sources.segments_of(seed))
    elif kind == "nnunet":
        sources.write_nnunet(source, SEEDS)
    elif kind == "m3d-refseg":
        sources.write_m3d(source, SEEDS)
    else:
        sources.write_rex(source, dict.fromkeys(SEEDS, "train"))
    code, _, err = run(capsys, "convert", kind, str(source), "-o", str(data))
    assert code == 0, err
    code, out, err = run(capsys, "evaluate", "demo", str(data), "--limit", "5", "--json")
    assert code == 0
    assert ("the split train" in err) == any(row.split == "train" for row in read_annotations(data)[:5])
    assert json.loads(out)["sentences"] == 5
    rows = read_annotations(data)
    write_dataset_slices(tmp_path / "prepared", data, rows, 64, "slices")
    assert any((tmp_path / "prepared").iterdir())
    positive = [row.read_mask().any() for row in rows]
    assert 0 < np.mean(positive) < 1
