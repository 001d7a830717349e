"""From a data set to a checkpoint that the runtime opens."""

from __future__ import annotations

import errno
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_dataset import read_table, write_dataset, write_table

from lsms_rt.errors import InputError, MachineError
from lsms_rt.model import LSMS, LsmsConfig, TextConfig, preset
from lsms_rt.pytorch import open_checkpoint
from lsms_rt.tokenizer import Tokenizer, words_of
from lsms_rt.training import train as module
from lsms_rt.training.card import losses_of
from lsms_rt.training.dataset import check_answers, read_rows, updates_per_epoch
from lsms_rt.training.fit import line_of, save_checkpoint
from lsms_rt.training.options import TrainOptions
from lsms_rt.training.output import check_space
from lsms_rt.training.recipe import Stage
from lsms_rt.training.run import LOG, STATE, Run
from lsms_rt.training.slices import Slices
from lsms_rt.training.start import begin
from lsms_rt.training.train import slice_size, train
from lsms_rt.training.vocabulary import vocabulary_of

FILES = {
    "README.md", "config.json", "curves.png", "examples.png", "model.safetensors", "sentences.json", "tokenizer.json",
}  # fmt: skip


def tiny(words: int = 50) -> LsmsConfig:
    text = TextConfig(vocab_size=words, hidden_size=32, layers=1, heads=2, intermediate_size=64)
    return preset("tiny", image_size=64, text=text, presence=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("train") / "squares")


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[TrainOptions, list[str]]:
    said: list[str] = []
    options = TrainOptions(dataset=data, output=data.parent / "out", init="none", image_size=64, epochs=2, threads=1)
    train(options, said.append)
    return options, said


@pytest.mark.slow
def test_a_data_set_becomes_a_checkpoint(trained: tuple[TrainOptions, list[str]]) -> None:
    options, said = trained
    names = {path.name for path in options.output.iterdir()}
    # It holds slices of patients.
    assert options.output.stat().st_mode & 0o077 == 0
    assert names == FILES | {"best", "run.json", LOG, STATE, "slices"}
    model = LSMS.from_pretrained(options.output)
    assert (model.config.image_size, model.config.crop, model.config.presence) == (64, "body", True)
    for name in ("curves.png", "examples.png"):
        with Image.open(options.output / name) as picture:
            assert picture.width > 500
    with open_checkpoint(options.output, device="cpu") as segmenter:
        ct = np.load(options.dataset / "images/2_0.npy")
        assert segmenter.predict(ct, "the dark lesion on the left").mask.shape == ct.shape
    text = "\n".join(said)
    assert "train: 2 cases, 4 slices, 12 sentences" in text
    assert "pixels (the data set does not know organs)" in text
    assert "presence AUC" in text


@pytest.mark.slow
def test_the_card_says_what_happened(trained: tuple[TrainOptions, list[str]]) -> None:
    options, _ = trained
    text = (options.output / "README.md").read_text()
    for words in (
        "Not a medical device",
        "squares: train: 2 cases, 4 slices, 12 sentences; val: 1 case",
        "random weights",
        "sentences of at most 32 tokens",
        "looks (the data set does not know attributes of lesions)",
        "sentence (the data set does not know meanings of sentences)",
        "2 updates",
    ):
        assert words in text, words
    assert str(options.dataset) not in text


@pytest.mark.slow
def test_a_longer_run_continues(trained: tuple[TrainOptions, list[str]]) -> None:
    options, _ = trained
    with pytest.raises(InputError, match="continue it with --resume"):
        train(options, print)
    with pytest.raises(InputError, match="at the first start of .* it was none"):
        train(replace(options, init="demo", resume=True), print)
    before = (options.output / "slices/train/hu.npy").stat().st_mtime_ns
    train(replace(options, epochs=3, resume=True), [].append)
    assert (options.output / "slices/train/hu.npy").stat().st_mtime_ns == before
    assert torch.load(options.output / STATE, weights_only=True)["done"]["updates"] == 3
    rows = read_table(options.dataset)
    write_table(options.dataset, rows[1:])
    with pytest.raises(InputError, match="has changed since"):
        train(replace(options, epochs=4, resume=True), print)
    write_table(options.dataset, rows)


@pytest.mark.slow
def test_an_interrupted_run_resumes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Run.update

    def stop(self: Run, progress: float) -> Stage:
        if self.done.updates == stop_at:
            raise KeyboardInterrupt
        return update(self, progress)

    said: list[str] = []
    options = TrainOptions(dataset=data, output=tmp_path / "out", image_size=64, epochs=2, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", stop)
        for stop_at in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                train(replace(options, resume=stop_at == 1), said.append)
    assert "stopped before the first update: nothing is trained yet" in said
    assert "stopped after update 1; the same options with --resume continue" in said
    assert not (options.output / "config.json").exists()
    assert not any("% done" in line for line in said)
    monkeypatch.setattr("lsms_rt.training.fit.LINE_SECONDS", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    train(replace(options, resume=True), said.append)
    assert "resumed after update 1, 50% of the run" in said
    assert any(re.fullmatch(r"update 2 \(.+\): 100% done, loss \d+\.\d\d, 00:00 left", line) for line in said)
    rows = [json.loads(line) for line in (options.output / LOG).read_text().splitlines()]
    assert [row["start"] for row in rows if "start" in row] == [0, 0, 1]
    kept = [row["weights of update"] for row in rows if "weights of update" in row]
    assert any("holds the weights it began with" in line for line in said) == (kept == [0])
    assert {path.name for path in options.output.iterdir()} >= FILES


@pytest.mark.slow
def test_a_checkpoint_to_begin_with_keeps_its_words_and_size(data: Path, tmp_path: Path) -> None:
    words = vocabulary_of(["the dark lesion"])
    torch.manual_seed(0)
    size = Tokenizer(words.encode(), 32).vocab_size
    model = LSMS(replace(tiny(size), presence=False, crop="none"))
    (tmp_path / "words.json").write_text(words)
    model.save_pretrained(tmp_path / "init", tokenizer=tmp_path / "words.json")
    options = TrainOptions(dataset=data, output=tmp_path, init=str(tmp_path / "init"))
    start = begin(options, [], print)
    assert (start.model.config.image_size, start.model.config.crop, start.model.config.presence) == (64, "none", True)
    assert start.tokenizer == words.encode()
    assert begin(replace(options, crop="body"), [], print).model.config.crop == "body"
    (tmp_path / "init/tokenizer.json").write_text(vocabulary_of(["more words than weights are there for"]))
    with pytest.raises(InputError, match="belongs to the weights"):
        begin(options, [], print)


def test_a_new_network_knows_the_words_of_the_data_set(data: Path) -> None:
    options = TrainOptions(dataset=data, output=data, init="none", image_size=64)
    start = begin(options, ["der dunkle Herd"], print)
    tokenizer = Tokenizer(start.tokenizer, 32)
    assert tokenizer("der dunkle Herd").unknown_words == ()
    assert tokenizer("der dunkle Fleck").unknown_words == ("Fleck",)


@pytest.mark.parametrize(
    ("words", "held_out", "tokens"), [(3, 3, 32), (30, 30, 32), (31, 3, 64), (3, 31, 64), (62, 3, 64), (70, 3, 64)]
)
def test_a_new_network_reads_the_longest_sentence(data: Path, words: int, held_out: int, tokens: int) -> None:
    """Of both splits; with the marks at its ends a sentence has two tokens more than words."""
    options = TrainOptions(dataset=data, output=data, init="none", image_size=64)
    model = begin(options, ["dark " * words], print, held_out=["dark " * held_out]).model
    assert model.config.text.max_tokens == tokens
    assert len(model.text_encoder.bert.embeddings.position_embeddings.weight) == tokens


def test_words_are_those_between_spaces() -> None:
    assert words_of('the "left" lobe, the (left) one -') == ["the", "left", "lobe", "one"]


def test_prepared_slices_keep_the_resolution_of_the_body() -> None:
    assert slice_size(replace(tiny(), crop="none")) == 64
    assert slice_size(replace(tiny(), crop="body")) == 96


def test_losses_follow_from_what_the_slices_know(phantom_slices: Slices) -> None:
    known = losses_of([phantom_slices], presence=True)
    assert {"pixels", "looks", "sentence", "dense batches"} <= set(known.used)
    assert known.absent == "none"
    incomplete = replace(phantom_slices, organs=None, complete=False)
    found = losses_of([incomplete], presence=False)
    assert set(found.left_out) == {"organs", "every lesion of a slice"}
    assert "presence" not in found.used


def test_validation_reads_at_most_300_slices(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_rows(data).validation) == 6
    monkeypatch.setattr("lsms_rt.training.dataset.VALIDATION_SLICES", 1)
    rows = read_rows(data)
    assert len({row.image for row in rows.validation}) == 1
    assert len(rows.validation) == 3
    assert updates_per_epoch(rows, 3) == 2


def test_a_validation_split_without_false_sentences_is_said(data: Path) -> None:
    rows, both = read_rows(data), {"train": 1, "val": 1}
    assert check_answers(rows, both, {"train": 1, "val": 20}) == []
    assert "only 3 sentences" in check_answers(rows, both, {"train": 1, "val": 3})[0]
    assert "no sentence of split 'val'" in check_answers(rows, both, {"train": 1, "val": 0})[0]
    assert "no false sentence" in line_of(3, "words", {"dice_gate_open": 0.5})


def test_space_is_checked_where_the_folder_will_be(tmp_path: Path) -> None:
    check_space(tmp_path / "a" / "b", 1, 64, 1000)
    with pytest.raises(InputError, match="10 slices"):
        check_space(tmp_path / "a" / "b", 10, 10**8, 1000)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tmp_path / "words.json"
    words.write_text(vocabulary_of([]))
    model = LSMS(tiny())
    save_checkpoint(model, tmp_path / "best", words, {"note.txt": "first"})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LSMS, "save_pretrained", full)
    with pytest.raises(MachineError, match="free some disk space"):
        save_checkpoint(model, tmp_path / "best", words, {"note.txt": "second"})
    assert (tmp_path / "best/note.txt").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "words.json"]


def test_cuda_is_refused_where_there_is_none(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(module.GpuNotFoundError, match="--device cuda"):
        train(TrainOptions(dataset=data, output=data, device="cuda"), print)
