"""The table of words in an engine, in a checkpoint, and where there is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundled_table import write_table

from lsms_rt import Segmenter
from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.errors import EngineFormatError, EngineInvalidError, InputError, SentenceNotUnderstoodError
from lsms_rt.sentences import TABLE, Reader, contract_of, default_contract, open_reader
from lsms_rt.sentences.contract import default_table, table_of, taught_table
from lsms_rt.tokenizer import Tokenizer


def with_table(demo: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the bundled engine with a table of its own."""
    shutil.copytree(demo, folder)
    write_table(folder, json.dumps(default_table() | changes).encode())
    return folder


def test_the_default_is_a_valid_table() -> None:
    assert contract_of(json.dumps(default_table()).encode()) == default_contract()


def test_the_bundled_engine_holds_the_packages_table(demo_engine: Path, tmp_path: Path) -> None:
    """python tests/helpers/bundled_table.py writes it."""
    assert (demo_engine / TABLE).read_bytes() == table_of(tmp_path)


def test_an_engine_without_a_table_is_read_by_the_default(demo_engine: Path, tmp_path: Path) -> None:
    assert open_reader(open_directory(demo_engine)).contract == default_contract()
    old = Path(shutil.copytree(demo_engine, tmp_path / "old.engine"))
    (old / TABLE).unlink()
    manifest = open_directory(old).manifest
    write_manifest(old, replace(manifest, files={n: d for n, d in manifest.files.items() if n != TABLE}))
    assert open_reader(open_directory(old)).contract is default_contract()


def test_a_table_without_the_newer_lists_is_read_with_the_packages() -> None:
    older = {name: value for name, value in default_table().items() if name not in ("relating", "distance", "numbered")}
    assert contract_of(json.dumps(older).encode()) == default_contract()


def test_an_engine_is_read_by_its_own_table(demo_engine: Path, tmp_path: Path) -> None:
    table = default_table()
    table["groups"]["lesion"][0].append("blob")
    table["always"]["negation"].append("zilch")
    table["function"].append("Für")
    engine = with_table(demo_engine, tmp_path / "own.engine", **table)
    with Segmenter(engine) as segmenter:
        assert segmenter.read_sentence("the blob").read_as == "the lesion"
        assert segmenter.read_sentence("the lesion für us").understood == "yes"
        with pytest.raises(SentenceNotUnderstoodError, match="zilch"):
            segmenter.prepare_sentence("zilch lesion in the liver")


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": []},
        {"groups": {"lesion": [["a\nb"]]}},
        {"groups": {"lesion": [["$(rm)"]]}},
        {"groups": {"lesion": [["-"]]}},
        {"not_negation": ["'"]},
        {"always": {}},
        {"function": "x"},
        {"function": [["a"]] * 3},
        {"function": ["a"] * 300_000},
        {"negation_prefixes": [3]},
        {"foreign": {"German": {"der": {"die": {"das": {"x": "y"}}}}}},
        {"segments": {}},
        {"harmless": {}},
        {"harmless": [["known"]]},
        {"headings": "findings"},
        {"format": "1"},
        {"language": None},
    ],
)
def test_a_malformed_table_is_an_error_of_the_engine(changes: dict[str, Any]) -> None:
    with pytest.raises(EngineInvalidError, match="not a valid table of words"):
        contract_of(json.dumps(default_table() | changes).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b"{}"])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(EngineInvalidError):
        contract_of(data)


def test_a_newer_table_is_refused() -> None:
    with pytest.raises(EngineFormatError, match="newer format"):
        contract_of(json.dumps(default_table() | {"format": 2}).encode())


def test_a_checkpoint_brings_its_table(tmp_path: Path) -> None:
    assert json.loads(table_of(tmp_path)) == default_table()
    (tmp_path / TABLE).write_text(json.dumps(default_table() | {"taught": ["wobbly"]}))
    assert contract_of(table_of(tmp_path)).taught == {"wobbly"}
    (tmp_path / TABLE).write_text("mine")
    with pytest.raises(EngineInvalidError):
        table_of(tmp_path)


def test_a_network_keeps_the_words_that_it_was_trained_with(reader: Reader) -> None:
    """They are spelled letter by letter, as they were in training; a word said once may be a name."""
    said = ["the wobbly cyst in segment 7", "wobbly lesion of Meyer in segment 7", "the 12 mm cyst", "a 12 mm lesion"]
    table = taught_table(said, reader.tokenizer.is_unknown)
    assert json.loads(table)["taught"] == ["12", "7", "mm", "wobbly"]
    taught = Reader(reader.tokenizer, contract_of(table.encode()))
    for text in ("the wobbly lesion in segment 7", "the 12 mm lesion"):
        assert (taught.read(text).understood, taught.read(text).read_as) == ("yes", text)
    assert taught.read("the lesion of Meyer").unknown_words == ("Meyer",)
    # Training goes on from it.
    more = taught_table(["the shaky cyst", "shaky"], reader.tokenizer.is_unknown, table.encode())
    assert json.loads(more)["taught"] == ["12", "7", "mm", "shaky", "wobbly"]


def test_an_engine_that_knows_no_sides_does_not_lose_them(reader: Reader) -> None:
    values = json.loads(reader.tokenizer._fast.to_str())
    for word in ("left", "right"):
        del values["model"]["vocab"][word]
    sideless = Reader(Tokenizer(json.dumps(values).encode(), 32))
    for text in ("the cyst in the left lobe of the liver", "the cyst in segment VII of the liver"):
        assert sideless.read(text).understood == "no"
    assert sideless.read("the cyst in the liver").understood == "yes"


# The Segmenter


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_a_segmenter_refuses_or_warns(demo_engine: Path, abdomen: Any) -> None:
    text = "no lesion in the left lobe"
    with Segmenter(demo_engine) as strict, Segmenter(demo_engine, on_unknown="warn") as lenient:
        for ask in (strict.predict, lambda img, text: strict.predict_series([img], text)):
            with pytest.raises(SentenceNotUnderstoodError, match='what is negated, .*"no"') as caught:
                ask(abdomen, text)
            assert caught.value.exit_code == InputError.exit_code
            assert caught.value.reading.understood == "no"
        result = lenient.predict(abdomen, text)
        assert (result.understood, result.unknown_words) == ("no", ("no",))
        # A negated sentence is not answered by the rest of the slice.
        assert result.read_as == "lesion in the left lobe"
        same = strict.predict(abdomen, "lesion in the left lobe")
        assert (result.mask == same.mask).all() and (same.understood, same.notes) == ("yes", ())
        assert any('"no"' in note for note in result.notes)
        with pytest.raises(SentenceNotUnderstoodError, match="no word that this engine knows"):
            lenient.predict(abdomen, "asdf qwer")


def test_a_wrong_policy_is_refused(demo_engine: Path) -> None:
    with pytest.raises(InputError, match='on_unknown is \'ignore\'; give "refuse" or "warn"'):
        Segmenter(demo_engine, on_unknown="ignore")


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_a_reading_computes_nothing(demo_engine: Path) -> None:
    with Segmenter(demo_engine) as segmenter:
        reading = segmenter.read_sentence("the left-sided cyst")
        assert (reading.read_as, reading.side, reading.understood) == ("the left-lobe cyst", "left", "yes")
        assert not segmenter._sentences._kept
