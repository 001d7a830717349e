"""``lsms-rt train``: options, and what is refused before anything expensive."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import refused, run
from small_dataset import read_table, write_dataset, write_table

from lsms_rt.cli import train as command
from lsms_rt.cli.arguments import options_from
from lsms_rt.cli.main import COMMANDS
from lsms_rt.cli.parser import make_parser
from lsms_rt.training.options import TrainOptions

SENTENCE, SPLIT = 4, 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", slices=1)


def refuse(capsys: pytest.CaptureFixture[str], words: str, data: Path, *more: str) -> None:
    """``train`` fails in one line, and leaves no run."""
    output = data.parent / "out"
    refused(capsys, 2, words, "train", str(data), "-o", str(output), *more)
    assert not (output / "run.json").exists()


def change(data: Path, column: int, old: str, new: str) -> None:
    write_table(
        data, [[*r[:column], new if r[column] == old else r[column], *r[column + 1 :]] for r in read_table(data)]
    )


def test_the_parser_has_the_defaults_of_the_options() -> None:
    found = make_parser(COMMANDS).parse_args(["train", "data", "-o", "out"])
    assert options_from(TrainOptions, found) == TrainOptions(dataset=Path("data"), output=Path("out"))


def test_options_arrive(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = list[TrainOptions]()

    def fake(options: TrainOptions, status: object) -> Any:
        seen.append(options)
        point = {"dice": 0.5, "missed": 0.25, "specificity": 0.95}
        return NamedTuple("Done", [("checkpoint", Path), ("point", dict)])(options.output, point)

    monkeypatch.setattr("lsms_rt.training.train.train", fake)
    line = (
        "train d -o o --init none --preset small --hours 1.5 --image-size 128 --crop none --seed 3 --threads 2 --resume"
    )
    code, out, _ = run(capsys, *line.split())
    assert code == 0
    assert "Dice 0.500, missed 25.0%, specificity 95.0%" in out
    assert seen == [
        TrainOptions(
            dataset=Path("d"), output=Path("o"), init="none", preset="small", hours=1.5, image_size=128, crop="none",
            seed=3, threads=2, resume=True,
        )
    ]  # fmt: skip
    assert command.COMMAND in COMMANDS


@pytest.mark.parametrize(
    "words, options",
    [
        ("add --init none", ["--preset", "base"]),
        ("add --init none", ["--text-encoder", "bert"]),
        ("add --init none", ["--init", "mine", "--backbone", "mscan.pth"]),
        ("multiple of 32", ["--image-size", "100"]),
        ("more than 0", ["--hours", "0"]),
        ("more than 0", ["--hours", "nan"]),
        ("cannot be trained further", ["--init", "nothing"]),
        ("no such file", ["--init", "none", "--backbone", "nothing.pth"]),
        ("has no config.json", ["--init", "none", "--text-encoder", "nothing"]),
        ("holds no run to resume", ["--resume"]),
    ],
)
def test_refused_options(capsys: pytest.CaptureFixture[str], data: Path, words: str, options: list[str]) -> None:
    refuse(capsys, words, data, *options)


def test_epochs_and_hours_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "train", "data", "-o", "out", "--epochs", "2", "--hours", "1")
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_refused_data_sets(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    rows = read_table(data)
    refuse(capsys, "annotations.csv was not found", data.parent)
    change(data, SPLIT, "val", "test")
    refuse(capsys, "no rows of split 'val'", data)
    write_table(data, rows)
    change(data, SPLIT, "train", "test")
    refuse(capsys, "no rows of split 'train'", data)
    write_table(data, [row for row in rows if row[0] == "case 0"])
    refuse(capsys, "has 1 case;", data)


def test_a_case_in_two_splits_lists_every_line(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    write_table(data, [["case 0", *row[1:]] for row in read_table(data)])
    code, _, err = run(capsys, "train", str(data), "-o", str(data.parent / "out"))
    assert code == 2
    assert all(f"line {line}: the case is in split 'val' here" in err for line in (8, 9, 10))


def test_words_that_the_vocabulary_does_not_know(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    change(data, SENTENCE, "the bright lesion", "die helle Raumforderung im Segment sieben")
    refuse(capsys, "the vocabulary does not know 6 of the data set's 12 words; ", data)
    show = ("--names",)
    refuse(capsys, "the vocabulary does not know 6 of the data set's 12 words, such as 'on', 'die'", data, *show)
    assert not (data.parent / "out").exists()


def test_a_sentence_that_is_too_long(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    row = read_table(data)[1]
    rows = read_table(data)
    rows[1] = [*row[:SENTENCE], "the lesion " * 20, *row[SENTENCE + 1 :]]
    write_table(data, rows)
    refuse(capsys, "line 3: the sentence has", data)


def test_images_and_masks_that_cannot_be_read(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    shutil.copy(data / "images/0_0.npy", data / "images/whole.npy")
    (data / "images/0_0.npy").write_bytes(b"not an array")
    refuse(capsys, "line 2: the image: ", data, "--image-size", "64")
    (data / "images/whole.npy").replace(data / "images/0_0.npy")
    np.save(data / "images/1_0.npy", np.zeros((90, 96), np.float32))
    code, _, err = run(capsys, "train", str(data), "-o", str(data.parent / "out"), "--image-size", "64")
    assert code == 2
    assert all(f"line {line}: the mask" in err for line in (5, 6, 7))
    assert not (data.parent / "out" / "run.json").exists()


def test_a_split_without_a_lesion(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    for number in (0, 1):
        shutil.copy(data / "masks/2_0_2.png", data / f"masks/2_0_{number}.png")
    refuse(capsys, "every mask of split 'val' is empty", data, "--image-size", "64")


def test_a_full_disk(capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int = 10**6

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage())
    refuse(capsys, "GB on disk", data)


def test_a_folder_that_is_not_empty(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    (data.parent / "out").mkdir()
    (data.parent / "out" / "notes.txt").write_text("mine")
    refuse(capsys, "is not empty", data)
    refused(capsys, 2, "is a file", "train", str(data), "-o", str(data / "annotations.csv"))
