"""Several sentences of one input, and files of jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_segmenter import LEFT, RIGHT, fake_run, fake_segmenter, write_arrays
from predictions import opened, predict, without_times

from lsms_rt.ct_slice import slice_from_array
from lsms_rt.errors import EngineInvalidError, InputError, SentenceNotUnderstoodError
from lsms_rt.runs import asking, outputs, slices
from lsms_rt.runs import run as run_module
from lsms_rt.runs.jobs import Job, jobs_of, read_jobs
from lsms_rt.runs.journal import NAME
from lsms_rt.runs.request import Request
from lsms_rt.runs.run import run
from lsms_rt.segmenter import Segmenter
from lsms_rt.writing import overlay

NOTHING = "the lesion in segment 7"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_MIN_SIDE", 64)


def ask(jobs: list[Job], output: Path | None = None, **options: Any) -> Any:
    return run(fake_segmenter(**options), jobs, Request(output=output))


def test_every_answer_names_its_sentence(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 2), tmp_path / "out"
    fake_run(paths, [LEFT, RIGHT], out)
    document = json.loads((out / "results.json").read_text())
    place = [(record["input"], record["number"], record["sentence"]) for record in document["results"]]
    assert place == [(1, 0, 1), (1, 0, 2), (2, 1, 1), (2, 1, 2)]
    masks = [record["mask"] for record in document["results"]]
    assert masks[:2] == ["input1_0000_1_mask.png", "input1_0000_2_mask.png"]
    assert [(row["input"], row["sentence"]) for row in document["series"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [(row["input"], row["sentence"], row["side"]) for row in document["sentences"]] == [
        (1, 1, "left"), (1, 2, "right"), (2, 1, "left"), (2, 2, "right"),
    ]  # fmt: skip
    assert not any("text" in row for row in document["sentences"])


def test_files_are_those_of_their_sentence(tmp_path: Path) -> None:
    """Each mask lies in the half that its sentence names, and is the one of a run with that sentence alone."""
    paths = write_arrays(tmp_path / "in", 1)
    fake_run(paths, [LEFT, RIGHT], tmp_path / "both")
    for number, text in enumerate([LEFT, RIGHT], 1):
        fake_run(paths, text, tmp_path / f"only{number}")
        both = opened(tmp_path / "both" / f"0000_{number}_mask.png")
        np.testing.assert_array_equal(both, opened(tmp_path / f"only{number}" / "0000_mask.png"))
        assert both.any()


def test_a_run_resumes_per_slice_and_sentence(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 3), tmp_path / "out"
    fake_run(paths, [LEFT, RIGHT], out)
    first = json.loads((out / "results.json").read_text())
    (out / "input2_0001_2_mask.png").unlink()
    (out / "results.json").unlink()
    segmenter = fake_segmenter()
    report = run(segmenter, jobs_of(paths, [LEFT, RIGHT]), Request(output=out))
    assert sum(segmenter._backend.sizes) == 1
    assert report.resumed == 5
    again = json.loads((out / "results.json").read_text())
    assert without_times(again) == without_times(first)
    assert (out / "input2_0001_2_mask.png").is_file()
    assert again["run"]["started"] == first["run"]["started"]
    assert (again["run"]["answers"], again["run"]["resumed"]) == (6, 5)


def test_a_run_that_stops_between_two_sentences_goes_on_there(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 2), tmp_path / "out"
    fake_run(paths, [LEFT, RIGHT], out)
    before = {p.name: p.read_bytes() for p in out.glob("*.png")}
    lines = (out / NAME).read_text().splitlines(keepends=True)
    # the head, and three of four answers
    (out / NAME).write_text("".join(lines[:4]))
    for name in ("results.json", "input2_0001_2_mask.png", "input2_0001_2_overlay.png"):
        (out / name).unlink()
    segmenter = fake_segmenter()
    run(segmenter, jobs_of(paths, [LEFT, RIGHT]), Request(output=out))
    assert segmenter._backend.sizes == [1]
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == before


def test_other_sentences_are_another_request(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 1), tmp_path / "out"
    fake_run(paths, [LEFT, RIGHT], out)
    for texts in ([RIGHT, LEFT], [LEFT], [LEFT, RIGHT, "the cyst"]):
        with pytest.raises(InputError, match="another input, sentence"):
            fake_run(paths, texts, out)


def test_the_same_sentence_twice_is_refused(tmp_path: Path) -> None:
    """Left out, it would change the numbers of those after it."""
    paths = write_arrays(tmp_path, 1)
    with pytest.raises(InputError, match="sentences 1 and 3 are the same"):
        fake_run(paths, [LEFT, RIGHT, f"  {LEFT.upper()} "])
    with pytest.raises(InputError, match="entry 1: sentences 1 and 2 are the same"):
        read_jobs(write_jobs(tmp_path, [{"input": "a", "text": [LEFT, LEFT]}]))


def test_a_run_that_is_terminated_says_how_it_goes_on(tmp_path: Path) -> None:
    """As services and containers end it."""
    paths = write_arrays(tmp_path / "in", 1)
    code = """
import os, signal, sys
from lsms_rt.cli.main import main
from lsms_rt.runs import run
run.load_slices = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["predict", "demo", str(paths[0]), "--text", LEFT, "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "what is done is kept; the same command goes on from there", "error: interrupted",
    ]  # fmt: skip


def test_a_sentence_that_is_not_understood_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SentenceNotUnderstoodError, match=r"^sentence 2: ") as caught:
        fake_run([tmp_path / "none.npy"], [LEFT, "no lesion in the left lobe"])
    assert caught.value.reading.understood == "no"


def test_a_slice_that_fails_is_told_for_each_sentence(tmp_path: Path) -> None:
    paths = write_arrays(tmp_path / "in", 2)
    np.save(paths[1], np.full((64, 64), 3000, np.int16))
    report = fake_run(paths, [LEFT, RIGHT], broken=0.9)
    assert len(report.results) == 2
    wanted = [f"input 2: sentence {n}: the file: the engine returned NaN; build it again" for n in (1, 2)]
    assert report.not_computed == wanted


def test_sentences_keep_their_numbers_where_an_answer_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first slice has no answer for the first sentence: the second one's mask must not take its place."""
    plain = slices._result_or_error

    def lost(segmenter: Segmenter, ct: Any, text: str) -> Any:
        return EngineInvalidError("lost") if text == LEFT and ct is loaded[0] else plain(segmenter, ct, text)

    def batches(*_: Any, **__: Any) -> Any:
        raise EngineInvalidError("one by one")

    loaded = [slice_from_array(np.load(path)) for path in write_arrays(tmp_path / "in", 3)]
    loaded = [replace(ct, position_mm=float(n)) for n, ct in enumerate(loaded)]
    monkeypatch.setattr(slices, "_result_or_error", lost)
    monkeypatch.setattr(Segmenter, "predict_series", batches)
    monkeypatch.setattr(run_module, "load_slices", lambda *_, **__: loaded)
    montages: list[Any] = []
    monkeypatch.setattr(outputs, "save_montage", lambda path, *given: montages.append(given) or path.touch())
    report = fake_run([tmp_path / "in"], [LEFT, RIGHT], tmp_path / "out")
    assert [(record["index"], record["sentence"]) for record in report.results] == [
        (0, 2),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    assert [(row["sentence"], row["incomplete"]) for row in report.series] == [(1, 1), (2, 0)]
    (montage,) = montages
    assert montage[2] == {LEFT: "Lesion 1", RIGHT: "Lesion 2"}


def test_remarks_name_the_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = write_arrays(tmp_path, 1)
    assert predict(path, "--text", LEFT, "--text", NOTHING) == 0
    out, err = capsys.readouterr()
    assert [line.partition(": ")[0] for line in out.splitlines()] == ["sentence 1", "sentence 2"]
    assert "warning: sentence 2: the sentence is partly understood" in err
    assert "sentence 1: the sentence" not in err


# ------------------------------------------------------------------------------------------------- jobs


def write_jobs(folder: Path, rows: object) -> Path:
    file = folder / "jobs.json"
    file.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return file


def test_each_input_of_a_file_of_jobs_has_its_own_sentences(tmp_path: Path) -> None:
    write_arrays(tmp_path / "in", 3)
    rows = [
        {"input": "in/0.npy", "text": RIGHT},
        {"input": str(tmp_path / "in" / "1.npy"), "text": [LEFT, RIGHT]},
        {"input": "in/2.npy", "text": [LEFT], "series": None},
    ]
    out = tmp_path / "out"
    ask(read_jobs(write_jobs(tmp_path, rows)), out)
    document = json.loads((out / "results.json").read_text())
    asked = [(row["input"], row["sentence"], row["side"]) for row in document["results"]]
    assert asked == [(1, 1, "right"), (2, 1, "left"), (2, 2, "right"), (3, 1, "left")]
    assert sorted(p.name for p in out.glob("*_mask.png")) == [
        "input1_0000_mask.png", "input2_0001_1_mask.png", "input2_0001_2_mask.png", "input3_0002_mask.png",
    ]  # fmt: skip


def test_a_series_is_chosen_per_input(tmp_path: Path) -> None:
    rows = [{"input": "a", "text": LEFT, "series": 3}, {"input": "b", "text": LEFT, "series": "3:2"}]
    jobs = read_jobs(write_jobs(tmp_path, rows))
    assert [job.series for job in jobs] == ["3", "3:2"]
    assert [job.path for job in jobs] == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("not json", "not JSON"),
        ('[{"input": "Meyer",}]', r"not JSON in UTF-8 \(line 1, column"),
        ("[" * 100_000, "not JSON"),
        ({}, "no list of inputs"),
        ([], "no list of inputs"),
        (["Meyer"], "entry 1: not an object"),
        ([{"input": "a", "text": "x"}, {"input": "a"}], "entry 2: no 'text'"),
        ([{"text": "Meyer"}], "entry 1: no 'input'"),
        ([{"input": "a", "text": "Meyer", "Meyer": 1}], "entry 1: 1 unknown key;"),
        ([{"input": 3, "text": "Meyer"}], "entry 1: input is a path"),
        ([{"input": "a", "text": []}], "entry 1: text is an empty list"),
        ([{"input": "a", "text": ["Meyer", 3]}], "entry 1: the sentence is a int"),
        ([{"input": "a", "text": "  "}], "entry 1: the sentence is empty"),
        ([{"input": "a", "text": "Meyer", "series": [1]}], "entry 1: input is a path"),
        ([{"input": "a", "text": "Meyer", "series": True}], "entry 1: input is a path"),
        ([{"input": "a", "text": "Meyer", "series": ""}], "entry 1: input is a path"),
        ([{"input": " ", "text": "Meyer"}], "entry 1: input is empty"),
        ('[{"input": "a", "text": "Meyer", "text": "the cyst"}]', "a key twice"),
    ],
)
def test_a_file_that_is_no_file_of_jobs_is_refused(tmp_path: Path, rows: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_jobs(write_jobs(tmp_path, rows))
    assert "--jobs" in str(caught.value)
    assert "Meyer" not in str(caught.value)


def test_a_file_of_jobs_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([{"input": "a", "text": LEFT}]).encode())
    assert read_jobs(tmp_path / "jobs.json")[0].texts == (LEFT,)


def test_an_empty_path_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the current one, with whatever lies there."""
    write_arrays(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        predict("", "--text", LEFT)
    with pytest.raises(InputError, match="path of the image is empty"):
        fake_segmenter().predict("", LEFT)


def test_a_sentence_that_always_fails_does_not_end_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(segmenter: Segmenter, ct: Any, text: str) -> Any:
        return EngineInvalidError("lost") if text == LEFT else plain(segmenter, ct, text)

    def batches(*_: Any, **__: Any) -> Any:
        raise EngineInvalidError("one by one")

    plain, count = slices._result_or_error, asking.MAX_FAILED + 3
    loaded = [slice_from_array(np.full((64, 64), 100)) for _ in range(count)]
    monkeypatch.setattr(slices, "_result_or_error", lost)
    monkeypatch.setattr(Segmenter, "predict_series", batches)
    monkeypatch.setattr(run_module, "load_slices", lambda *_, **__: loaded)
    report = fake_run([tmp_path / "in"], [LEFT, RIGHT], tmp_path / "out")
    assert [record["sentence"] for record in report.results] == [2] * count
    assert len(report.not_computed) == asking.MAX_FAILED + 1
    assert report.not_computed[-1].startswith("sentence 1: 10 slices failed")
    assert report.not_written == ["a sentence has no answers, so the files of all slices are left out"]


def test_a_file_of_jobs_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--jobs: the file cannot be read"):
        read_jobs(tmp_path / "none.json")


def test_jobs_replace_inputs_and_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = write_arrays(tmp_path / "in", 1)
    file = write_jobs(tmp_path, [{"input": "in/0.npy", "text": [LEFT, RIGHT]}])
    assert predict("--jobs", file) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for arguments, words in (
        ((path, "--jobs", file), "leave INPUT and --text out"),
        (("--jobs", file, "--text", LEFT), "leave INPUT and --text out"),
        ((path,), "no --text is given"),
        (("--text", LEFT), "no INPUT is given"),
    ):
        assert predict(*arguments) == 2
        assert words in capsys.readouterr().err


def test_a_sentence_of_jobs_that_is_not_understood_is_named(tmp_path: Path) -> None:
    rows = [{"input": "a", "text": LEFT}, {"input": "b", "text": [LEFT, "not the cyst"]}]
    with pytest.raises(SentenceNotUnderstoodError, match=r"^input 2: sentence 2: "):
        ask(read_jobs(write_jobs(tmp_path, rows)))
