"""Shards: which inputs each has, and that merged they are the one run."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_segmenter import LEFT, fake_run, write_arrays
from predictions import TEXT, predict, without_times

from lsms_rt.cli.main import main
from lsms_rt.errors import EngineError, InputError
from lsms_rt.runs import journal
from lsms_rt.runs.merge import merge
from lsms_rt.runs.shard import Shard, in_stable_order
from lsms_rt.runs.table import as_csv

INPUTS, SHARDS = 5, 3


@pytest.fixture(autouse=True)
def _digests_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ROUNDS", 1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five inputs, of which the fourth cannot be read."""
    paths = write_arrays(tmp_path / "in", INPUTS)
    paths[3].write_bytes(b"")
    return paths


@pytest.fixture
def out(paths: list[Path], tmp_path: Path) -> Path:
    """Where all shards were written."""
    for index in range(1, SHARDS + 1):
        part(paths, tmp_path / "out", index)
    return tmp_path / "out"


def part(paths: list[Path], out: Path, index: int, count: int = SHARDS, text: str = LEFT, **options: Any) -> None:
    fake_run(paths, text, out, shard=Shard(index=index, count=count), **options)


def document_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def change(folder: Path, **values: Any) -> None:
    (folder / "results.json").write_text(json.dumps(document_of(folder) | values))


def merged_without_places(document: dict[str, Any]) -> dict[str, Any]:
    """What is the same in one run: not where files are, how slices are counted, and which part had them."""
    document = without_times(document)
    for name in ("results", "series"):
        keys = ("mask", "overlay", "number", "largest")
        document[name] = [{k: v for k, v in row.items() if k not in keys} for row in document[name]]
    return {k: v for k, v in document.items() if k not in ("shards", "files")}


@pytest.mark.parametrize("inputs, count", [(1, 1), (5, 3), (7, 7), (13, 4)])
def test_every_input_is_in_one_shard(inputs: int, count: int) -> None:
    numbers = [n for index in range(1, count + 1) for n in Shard(index=index, count=count).numbers(inputs)]
    assert sorted(numbers) == list(range(1, inputs + 1))


@pytest.mark.parametrize("index, count", [(0, 3), (4, 3), (1, 10_001)])
def test_a_shard_that_is_none_is_refused(index: int, count: int) -> None:
    with pytest.raises(InputError, match="give I/N"):
        Shard(index=index, count=count)


def test_more_shards_than_inputs_are_refused(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5 inputs in 6 parts"):
        part(paths, tmp_path / "out", 1, 6)


def test_the_order_of_inputs_is_that_of_sort() -> None:
    names = ["b", "a/c", "a-b", "B", "a/C", "ä"]
    assert [str(path) for path in in_stable_order(map(Path, names))] == ["B", "a-b", "a/C", "a/c", "b", "ä"]


def test_merged_shards_are_one_run(paths: list[Path], out: Path, tmp_path: Path) -> None:
    whole = fake_run(paths, output=tmp_path / "whole")
    document = merge([out], out)
    assert merged_without_places(document) == merged_without_places(whole.to_dict())
    assert document == document_of(out)
    for record in document["results"]:
        same = (tmp_path / "whole").glob(f"input{record['input']}_*_mask.png")
        assert [(out / record["mask"]).read_bytes()] == [path.read_bytes() for path in same]
    numbers = [record["number"] for record in document["results"]]
    assert len(set(numbers)) == len(numbers) == INPUTS - 1


def test_the_table_has_a_row_for_every_input(out: Path) -> None:
    merge([out], out)
    with (out / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["status"], row["finding"]) for row in rows] == [
        *((n, "complete", "1") for n in "123"), ("4", "failed", ""), ("5", "complete", "1"),
    ]  # fmt: skip
    assert "the file" in rows[3]["error"] and (out / rows[0]["mask"]).is_file()


def test_shards_of_several_folders_are_merged(paths: list[Path], tmp_path: Path) -> None:
    folders = [tmp_path / f"node{index}" for index in range(1, SHARDS + 1)]
    for index, folder in enumerate(folders, 1):
        part(paths, folder, index)
    # The folder of a shard, too; and a whole may be merged again.
    given = [*folders[:2], folders[2] / "shard-3-of-3"]
    document = merge(given, tmp_path / "whole")
    assert merge(given, tmp_path / "whole") == document
    assert all((tmp_path / "whole" / record["mask"]).is_file() for record in document["results"])
    assert (tmp_path / "whole").stat().st_mode & 0o777 == 0o700


def test_inputs_may_have_another_root_on_every_machine(paths: list[Path], tmp_path: Path) -> None:
    for index in range(1, SHARDS + 1):
        root = tmp_path / f"mount{index}"
        shutil.copytree(paths[0].parent, root)
        part([root / path.name for path in paths], tmp_path / "out", index)
    assert merge([tmp_path / "out"], tmp_path / "out")["inputs"] == INPUTS


def test_a_shard_resumes(paths: list[Path], out: Path) -> None:
    (out / "shard-1-of-3" / "results.json").unlink()
    report = fake_run(paths, LEFT, out, shard=Shard(index=1, count=SHARDS))
    # of inputs 1 and 4, of which one cannot be read
    assert report.resumed == 1
    assert merge([out], out)["run"]["resumed"] == 1


def test_inputs_that_cannot_be_read_are_a_result(tmp_path: Path) -> None:
    """Without one, the shard would be missing for ever."""
    paths = write_arrays(tmp_path / "in", 2)
    paths[1].write_bytes(b"")
    for index in (1, 2):
        part(paths, tmp_path / "out", index, 2)
    document = merge([tmp_path / "out"], tmp_path / "out")
    assert len(document["results"]) == 1 and document["not_read"][0].startswith("input 2: ")


def test_an_engine_that_fails_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        part(write_arrays(tmp_path / "in", 2), tmp_path / "out", 1, 2, broken=-2)
    with pytest.raises(InputError, match="no shard is there|not finished"):
        merge([tmp_path / "out"], tmp_path / "out")


def test_a_missing_shard_is_named(out: Path) -> None:
    shutil.rmtree(out / "shard-2-of-3")
    with pytest.raises(InputError, match="shard 2 of 3 not there"):
        merge([out], out)
    shutil.rmtree(out / "shard-3-of-3")
    with pytest.raises(InputError, match="shards 2 and 3 of 3 not there"):
        merge([out], out)
    assert not (out / "results.json").exists()


def test_an_unfinished_shard_is_named(out: Path) -> None:
    (out / "shard-2-of-3" / "results.json").unlink()
    with pytest.raises(InputError, match="shard 2 of 3 is not finished"):
        merge([out], out)


def test_a_shard_that_is_there_twice_is_named(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "shard-2-of-3", tmp_path / "again")
    with pytest.raises(InputError, match="shard 2 of 3 there twice"):
        merge([out, tmp_path / "again"], tmp_path / "whole")
    # The same folder by two names is one.
    (tmp_path / "link").symlink_to(out / "shard-2-of-3")
    assert merge([out, tmp_path / "link"], tmp_path / "whole")["inputs"] == INPUTS


def test_shards_of_another_run_are_named(paths: list[Path], out: Path, tmp_path: Path) -> None:
    shutil.rmtree(out / "shard-3-of-3")
    part(paths, out, 3, text="the cyst in the liver")
    with pytest.raises(InputError, match="shard 3 of 3 asked other inputs, sentences or options"):
        merge([out], out)
    shutil.rmtree(out / "shard-3-of-3")
    part([*paths, *write_arrays(tmp_path / "more", 1)], out, 3)
    with pytest.raises(InputError, match="shard 3 of 3 asked other inputs"):
        merge([out], out)
    part(paths, out, 1, 4)
    with pytest.raises(InputError, match="runs in 3 and 4 parts"):
        merge([out], out)


def test_shards_of_another_engine_are_named(out: Path) -> None:
    change(out / "shard-2-of-3", engine="sha256:" + "1" * 64)
    with pytest.raises(InputError, match="shard 2 of 3 computed by another engine than shard 1"):
        merge([out], out)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shard": {}}', '{"shard": {"index": "x", "count": 1}}'])
def test_results_that_cannot_be_read_are_told(out: Path, text: str) -> None:
    (out / "shard-1-of-3" / "results.json").write_text(text)
    with pytest.raises(InputError, match="shard 1 of 3"):
        merge([out], out)


def damage(document: dict[str, Any], how: str) -> Any:
    """Change the results of shard 2 of 3, whose inputs are 2 and 5."""
    first, shard = document["results"][0], document["shard"]
    changes: dict[str, Callable[[], Any]] = {
        "a file of another folder": lambda: first.update(mask="../../in/s0.npy"),
        "an absolute file": lambda: first.update(overlay="/etc/hostname"),
        "a file that is none": lambda: first.update(mask=3),
        "a result of another input": lambda: first.update(input=1),
        "a series of another input": lambda: document["series"][0].update(input=1),
        "a reason of another input": lambda: document.update(not_read=["input 1: empty"]),
        "a reason of no input": lambda: document.update(not_read=["empty"]),
        "a sentence of another input": lambda: document["sentences"][0].update(input=1),
        "a result less": lambda: document["results"].pop(),
        "a result twice": lambda: document["results"].append(first),
        "no summary, and no reason": lambda: document.update(series=[]),
        "a summary twice": lambda: document["series"].append(document["series"][0]),
        "no results": lambda: document.pop("results"),
        "no run": lambda: document.pop("run"),
        "no box": lambda: first.pop("bbox"),
        "no number": lambda: first.update(area_mm2=float("nan")),
        "too large a number": lambda: shard.update(count=float("inf")),
        "too many shards": lambda: shard.update(count=10**12),
        "too many inputs": lambda: document.update(inputs=10**30),
        "half a character": lambda: first.update(slice="\udcff"),
    }
    return changes if how == "" else changes[how]()


@pytest.mark.parametrize("how", damage({"results": [{}], "shard": {}}, ""))
def test_damaged_results_are_told(out: Path, how: str) -> None:
    """Nothing of them is merged: it could be another patient's, or lie anywhere."""
    document = document_of(out / "shard-2-of-3")
    damage(document, how)
    (out / "shard-2-of-3" / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"^shard 2 of 3: its results\.json cannot be read"):
        merge([out], out)
    assert not (out / "measurements.csv").exists()


def test_shards_that_write_other_files_are_named(paths: list[Path], out: Path) -> None:
    """Else some inputs would lack what others have, without a word."""
    part(paths, out, 2, nifti=True)
    with pytest.raises(InputError, match="shard 2 of 3 asked other inputs, sentences or options"):
        merge([out], out)


def test_a_spreadsheet_computes_nothing() -> None:
    """With --names, an error begins with a file's name."""
    table = as_csv([{"input": 1, "position_mm": -3.5, "error": "=cmd|' /C calc'!A0: empty", "slice": "@x"}])
    (row,) = csv.DictReader(io.StringIO(table))
    assert (row["error"][:2], row["slice"], row["position_mm"]) == ("'=", "'@x", "-3.5")


def test_a_terminal_obeys_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(out / "shard-2-of-3", not_written=["input 2: \x1b[2J\u202e"])
    assert main(["merge", str(out)]) == 5
    assert "not written: input 2: [2J" in capsys.readouterr().err


@pytest.mark.parametrize("name, content", [("measurements.csv", b"mine"), ("results.json", b"\xff")])
def test_files_of_somebody_are_not_replaced(out: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_bytes(content)
    with pytest.raises(InputError, match="results of another command"):
        merge([out], tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_bytes() == content


def test_a_merge_that_is_killed_leaves_no_results_of_others(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge([out], out)

    def killed(path: Path, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lsms_rt.runs.merge.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            merge([out], out)
    assert not (out / "results.json").exists() and (out / "measurements.csv").exists()
    assert merge([out], out) == document_of(out)


def test_results_of_another_command_are_not_replaced(paths: list[Path], out: Path, tmp_path: Path) -> None:
    fake_run(paths, output=tmp_path / "whole")
    before = (tmp_path / "whole" / "results.json").read_bytes()
    with pytest.raises(InputError, match="results of another command"):
        merge([out], tmp_path / "whole")
    assert (tmp_path / "whole" / "results.json").read_bytes() == before


@pytest.mark.usefixtures("engines_are_fake")
def test_the_commands(paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs in any order, as a shell lists them; messages and answers name the input's number in all."""
    out = tmp_path / "out"
    for index, given in enumerate((paths, paths[::-1], paths[2:] + paths[:2]), 1):
        code = predict(*given, "--text", TEXT, "-o", out, "--shard", f"{index}/{SHARDS}")
        assert code == (5 if index == 1 else 0)
    captured = capsys.readouterr()
    assert "not read: input 4: " in captured.err and captured.out.count("input 5: ") == 1
    assert main(["merge", str(out)]) == 5
    captured = capsys.readouterr()
    assert captured.out.startswith("3 shards, 5 inputs, 4 slices, 4 answers") and "input 4" in captured.err


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "a/b", "1/", "-1/3", "1/3/5", "²/3"])
def test_a_shard_that_is_none_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict("x.npy", "--text", TEXT, f"--shard={text}")
    assert "--shard" in capsys.readouterr().err


@pytest.mark.usefixtures("engines_are_fake")
def test_a_shard_needs_an_output(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(*paths, "--text", TEXT, "--shard", "1/2") == 2
    assert "add -o DIR" in capsys.readouterr().err


def test_several_folders_need_a_place(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(out), str(tmp_path)]) == 2
    assert "add -o DIR" in capsys.readouterr().err


@pytest.mark.usefixtures("engines_are_fake")
def test_nothing_tells_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, out = write_arrays(tmp_path / "Secret^Name", 3), tmp_path / "out"
    paths[0].write_bytes(b"")
    for index in (1, 2):
        predict(*paths, "--text", TEXT, "-o", out, "--shard", f"{index}/2")
    main(["merge", str(out)])
    captured = capsys.readouterr()
    written = "".join(path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".csv", ".jsonl"))
    for text in (captured.out, captured.err, written):
        assert text and "Secret" not in text and TEXT not in text
