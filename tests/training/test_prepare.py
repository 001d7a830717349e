"""From a data set to training slices: what it knows is learned from, and nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_dataset import SENTENCES, write_dataset

from lsms_rt.data import demo_checkpoint
from lsms_rt.datasets.knowledge import ATTRIBUTES, LESIONS, ORGANS
from lsms_rt.datasets.phantom.dataset import write_phantom
from lsms_rt.datasets.phantom.sentences import vocabulary_sentences
from lsms_rt.datasets.phantom.spec import PhantomSpec
from lsms_rt.datasets.png import write_labels
from lsms_rt.datasets.refhl import ANNOTATIONS, read_annotations
from lsms_rt.errors import DatasetError
from lsms_rt.tokenizer import Tokenizer
from lsms_rt.training.batches import Sampler
from lsms_rt.training.card import losses_of
from lsms_rt.training.dataset import check_knowledge, read_rows
from lsms_rt.training.options import TrainOptions
from lsms_rt.training.phantom_slices import write_phantom_slices
from lsms_rt.training.prepare import write_dataset_slices
from lsms_rt.training.run import Run
from lsms_rt.training.sentences import Mix, draw_pair, meaning_of
from lsms_rt.training.slices import NO_MASK, Slices, read_slices
from lsms_rt.training.train import train
from lsms_rt.training.validation import Validation
from lsms_rt.training.vocabulary import knows_grammar, vocabulary_of

SPEC = PhantomSpec(cases=2, seed=2, matrix=64)
# The table has one digit after the point.
AROUND = 0.051


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(folder, SPEC, workers=1)
    rows = read_table(folder)
    for row in rows:
        row["split"] = {"case_000": "train", "case_001": "val"}[row["case_id"]]
    write_table(folder, rows)
    return folder


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(phantom, tmp_path / "data")
    return tmp_path / "data"


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / ANNOTATIONS).open(newline="") as file:
        return list(csv.DictReader(file))


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / ANNOTATIONS).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def prepared(data: Path, folder: Path, size: int = 64) -> Slices:
    write_dataset_slices(folder, data, read_annotations(data), size, "reading")
    return read_slices(folder)


@pytest.mark.slow
def test_a_phantom_on_disk_teaches_what_a_generated_one_does(phantom: Path, tmp_path: Path) -> None:
    found = prepared(phantom, tmp_path / "found")
    counts = SPEC.slices_per_case()
    start = 0
    for number, count in enumerate(counts):
        write_phantom_slices(tmp_path / str(number), [2000 + number], count, 64, 1)
        expected = read_slices(tmp_path / str(number))
        part = slice(start, start + count)
        assert found.organs is not None
        assert expected.organs is not None
        np.testing.assert_array_equal(found.hu[part], expected.hu)
        np.testing.assert_array_equal(found.index[part], expected.index)
        np.testing.assert_array_equal(found.organs[part], expected.organs)
        for one, other in zip(found.records[part], expected.records, strict=True):
            assert one.lesions is not None
            assert other.lesions is not None
            assert one.regions == other.regions
            assert one.phase == (other.phase if other.lesions else "")
            for place, (read, made) in enumerate(zip(one.lesions, other.lesions, strict=True), 1):
                assert read.diameter_mm == pytest.approx(made.diameter_mm, abs=AROUND)
                assert read.centroid_mm == pytest.approx(made.centroid_mm, abs=AROUND)
                assert read.hu_difference == pytest.approx(made.hu_difference, abs=AROUND)
                # The number of the lesion in its case is in no file.
                rounded = {name: getattr(made, name) for name in ("diameter_mm", "centroid_mm", "hu_difference")}
                assert replace(read, **rounded) == replace(made, id=place, mask=read.mask)
                assert read.mask.shape == NO_MASK.shape
        start += count
    assert found.complete
    assert losses_of([found], presence=True).absent == "none"


def test_sentences_mean_whole_lesions_and_what_the_data_set_says(phantom: Path, tmp_path: Path) -> None:
    found = prepared(phantom, tmp_path / "found")
    rows = {(row.image, row.sentence): row for row in read_annotations(phantom)}
    asked = [one for record in found.records for one in record.asked]
    assert len(asked) >= len(rows)
    for row in rows.values():
        record = next(one for one in found.records if one.name == f"{row.case_id}/{row.slice_id}")
        one = next(one for one in record.asked if one.text == row.sentence)
        named = row.mask.stem.split("_")[1]
        assert one.regions == (() if named == "none" else tuple(map(int, named.split("-"))))
        query = meaning_of(one.meaning)
        assert query is not None
        assert query.key() == row.query


def test_without_the_files_it_is_what_it_was(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / LESIONS)
    shutil.rmtree(data / ORGANS)
    found = prepared(data, tmp_path / "found")
    losses = losses_of([found], presence=True)
    assert set(losses.left_out) == {"organs", "attributes of lesions", "every lesion of a slice"}
    # The meanings are in the table.
    assert "sentence" in losses.used
    assert "lesions.csv is not used" in check_knowledge(read_rows(data))[0]


def test_pictures_without_a_table_are_every_lesion(data: Path, tmp_path: Path) -> None:
    (data / ATTRIBUTES).unlink()
    found = prepared(data, tmp_path / "found")
    assert found.complete
    losses = losses_of([found], presence=True)
    assert set(losses.left_out) == {"attributes of lesions"}
    assert {"pixels", "sentence", "dense batches"} <= set(losses.used)


def test_all_that_is_wrong_is_listed_with_its_place(data: Path, tmp_path: Path) -> None:
    rows = read_annotations(data)
    first = next(row for row in rows if row.lesion_type)
    later = rows[-1]
    path = data / LESIONS / first.case_id / f"{first.slice_id}.png"
    labels = np.array(Image.open(path))
    labels[labels == labels.max()] = 200
    write_labels(path, labels)
    (data / ORGANS / later.case_id / f"{later.slice_id}.png").unlink()
    with pytest.raises(DatasetError) as caught:
        prepared(data, tmp_path / "found")
    text = "\n".join(caught.value.problems)
    assert "shows lesion 200, which lesions.csv does not have" in text
    assert f"line {next(r.line for r in rows if r.image == later.image)}: the picture of organs is not a file" in text
    assert first.case_id not in text


def test_a_mask_that_cuts_a_lesion_is_refused(data: Path, tmp_path: Path) -> None:
    row = next(row for row in read_annotations(data) if row.lesion_type)
    mask = row.read_mask()
    mask[tuple(np.argwhere(mask)[0])] = False
    write_labels(row.mask, np.where(mask, 255, 0).astype(np.uint8))
    with pytest.raises(DatasetError, match="the lesions that it touches.* differ in 1 pixels; draw both alike"):
        prepared(data, tmp_path / "found")


def test_pictures_are_turned_with_their_image(tmp_path: Path) -> None:
    """A NIfTI slice is stored transposed and reversed; its pictures are in its own grid."""
    nibabel = pytest.importorskip("nibabel")
    data = write_dataset(tmp_path / "data")
    text = (data / ANNOTATIONS).read_text()
    for path in sorted((data / "images").glob("*.npy")):
        hu = np.load(path)[:, :90]
        volume = np.ascontiguousarray(hu[::-1, ::-1].T)[:, :, None]
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 5.0, 1.0])), path.with_suffix(".nii"))
        path.unlink()
        case, number = path.stem.split("_")
        labels = np.zeros((96, 96), np.uint8)
        for value, sentence in enumerate(SENTENCES[:2], 1):
            file = data / f"masks/{path.stem}_{SENTENCES.index(sentence)}.png"
            labels[np.asarray(Image.open(file)) > 0] = 10 * value
        for file in (data / "masks").glob(f"{path.stem}_*.png"):
            write_labels(file, np.ascontiguousarray(np.asarray(Image.open(file))[::-1, :90][:, ::-1].T))
        turned = np.ascontiguousarray(labels[::-1, :90][:, ::-1].T)
        write_labels(data / LESIONS / f"case {case}" / f"{number}.png", turned)
        write_labels(data / ORGANS / f"case {case}" / f"{number}.png", (turned > 0).astype(np.uint8))
    (data / ANNOTATIONS).write_text(text.replace(".npy", ".nii"))
    found = prepared(data, tmp_path / "found", 96)
    assert found.organs is not None
    for hu, index, organs, record in zip(found.hu, found.index, found.organs, found.records, strict=True):
        # The dark squares; the rest of the body is brighter, and air darker.
        np.testing.assert_array_equal(index > 0, (hu > -60) & (hu < 20))
        np.testing.assert_array_equal(index > 0, organs > 0)
        assert [one.regions for one in record.asked] == [(1,), (2,), ()]
        assert (index == 1).sum() == 144


def test_meanings_that_the_grammar_does_not_have_are_said(data: Path) -> None:
    rows = read_table(data)
    for number, meaning in ((2, "my own words"), (4, "5-largest"), (5, "")):
        rows[number]["query"] = meaning
    write_table(data, rows)
    remarks = check_knowledge(read_rows(data))
    assert len(remarks) == 1
    assert "(column query) of 2 sentences are not of the grammar, the first in line 4" in remarks[0]
    assert "my own" not in remarks[0]
    assert meaning_of("closest-to(" * 5000 + "any" + ")" * 5000) is None


def test_the_grammar_speaks_where_it_may(phantom: Path, tmp_path: Path) -> None:
    record = next(one for one in prepared(phantom, tmp_path / "found").records if one.regions > 1)
    own = {one.text for one in record.asked}
    rng = np.random.default_rng(0)
    said = {
        share: [s.text for _ in range(40) for s in draw_pair(record, Mix(grammar=share), rng) or ()]
        for share in (0.0, 0.5)
    }
    assert set(said[0.0]) <= own
    assert 0.2 < np.mean([text in own for text in said[0.5]]) < 0.8


def test_validation_asks_what_the_data_set_says(phantom: Path, tmp_path: Path) -> None:
    found = prepared(phantom, tmp_path / "found")
    sampler = Sampler([found], image_size=64, window=(-160.0, 240.0), seed=0, crop_body=False, augmented=False)
    tokenizer = Tokenizer((demo_checkpoint() / "tokenizer.json").read_bytes(), 32)
    asked = Validation([found], tokenizer, sampler, per_slice=None).asked
    assert sorted(said.text for _, said in asked) == sorted(row.sentence for row in read_annotations(phantom))
    assert all(said.query is not None for _, said in asked)


def test_slices_of_an_earlier_version_are_read(phantom: Path, tmp_path: Path) -> None:
    prepared(phantom, tmp_path / "found")
    file = tmp_path / "found/slices.json"
    values = json.loads(file.read_text())
    for record in values["records"]:
        for one in record["asked"]:
            del one["meaning"]
    file.write_text(json.dumps(values))
    assert all(one.meaning == "" for record in read_slices(file.parent).records for one in record.asked)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Trains two updates instead of a run, and returns the lines for the user and the names of the losses."""

    def stop(run: Run, *_: object, **__: object) -> None:
        for progress in (0.0, 0.5):
            run.update(progress)
        raise KeyboardInterrupt(" ".join(name.removeprefix("dense ") for name in run.smooth))

    monkeypatch.setattr("lsms_rt.training.train.fit", stop)

    def train_on(data: Path) -> list[str]:
        lines: list[str] = []
        options = TrainOptions(dataset=data, output=data.parent / "out", image_size=64, threads=1)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(options, lines.append)
        return [*lines, str(caught.value)]

    return train_on


@pytest.mark.slow
def test_all_losses_are_used_where_the_data_set_knows_enough(data: Path, said: Callable[[Path], list[str]]) -> None:
    *lines, names = said(data)
    used = "losses: bce, dice, select, hard, presence, contrast, pixels, looks, sentence, dense batches"
    assert used in lines
    assert "left out: none" in lines
    assert "about 50% of the pictures, the grammar makes the sentences from the lesions' attributes" in lines
    assert {"pixels", "looks", "sentence"} <= set(names.split())


@pytest.mark.slow
def test_what_is_left_out_is_said(data: Path, said: Callable[[Path], list[str]]) -> None:
    for part in (LESIONS, ORGANS):
        shutil.rmtree(data / part)
    (data / ATTRIBUTES).unlink()
    write_table(data, [row | {"query": ""} for row in read_table(data)])
    *lines, names = said(data)
    assert "losses: bce, dice, select, hard, presence, contrast" in lines
    assert (
        "left out: pixels (the data set does not know organs); looks (the data set does not know attributes of "
        "lesions); sentence (the data set does not know meanings of sentences); dense batches (the data set does not "
        "know every lesion of a slice)"
    ) in lines
    assert not {"pixels", "looks", "sentence"} & set(names.split())


def test_the_grammar_needs_a_vocabulary_that_holds_its_words() -> None:
    assert knows_grammar(Tokenizer((demo_checkpoint() / "tokenizer.json").read_bytes(), 32))
    words = [text for text in vocabulary_sentences(np.random.default_rng(0), 2000) if "behind" not in text]
    assert not knows_grammar(Tokenizer(vocabulary_of(words).encode(), 32))
    assert knows_grammar(Tokenizer(vocabulary_of([*words, "behind"]).encode(), 32))
