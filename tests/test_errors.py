"""The errors' old names, and what a message may look like."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

import lsms_rt
from lsms_rt import errors
from lsms_rt.cli.main import _print_traceback


@pytest.mark.parametrize("old", sorted(errors._ALIASES))
def test_old_names_are_aliases_that_warn(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=old):
        assert issubclass(getattr(errors, old), errors.LsmsError)


def test_a_message_is_one_line() -> None:
    assert str(errors.InputError("a file\nof two\tlines")) == "a file of two lines"


def test_brief_is_printable_and_short() -> None:
    assert errors.brief("a\x00b\n c", 3) == "a b..."


def test_every_class_stands_in_the_tree_of_the_docstring() -> None:
    classes = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.LsmsError)]
    assert all(f" {c.__name__} " in (errors.__doc__ or "") or c is errors.LsmsError for c in classes)


@errors.chain_cut
def fails() -> None:
    try:
        raise ValueError("DOE^JOHN", lambda: 0)
    except ValueError as cause:
        raise errors.DatasetError("table", ["line 2", "line 3"], 9) from cause


@errors.chain_cut
def fails_later() -> Iterator[int]:
    yield 1
    fails()


@pytest.mark.parametrize("call", [fails, lambda: list(fails_later())])
def test_an_error_travels_between_processes_without_its_cause(call: Any) -> None:
    with pytest.raises(errors.DatasetError) as caught:
        call()
    error = caught.value
    error.add_note("our own")
    assert isinstance(errors.raised_from(error), ValueError)
    assert "DOE" not in repr(vars(error))
    for other in (pickle.loads(pickle.dumps(error)), pickle.loads(pickle.dumps(error, 0)), copy.copy(error)):
        assert (type(other), str(other), vars(other)) == (errors.DatasetError, str(error), vars(error))
        assert errors.raised_from(other) is None


def test_a_newer_cause_comes_before_one_that_was_cut() -> None:
    with pytest.raises(errors.DatasetError) as caught:
        fails()
    newer = KeyError("newer")
    caught.value.__cause__ = newer
    assert errors.raised_from(caught.value) is newer


def test_a_circle_of_causes_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    error, other = errors.InputError("ours"), ValueError("theirs")
    error.__cause__, other.__cause__ = other, error
    _print_traceback(error, names=False)
    assert capsys.readouterr().err.count("InputError, at") == 1


# Of classes: methods that neither read nor write, and raise nothing from another library's error.
PLAIN = {"close", "over", "check_sentence", "from_backend", "to_model_frame", "show_names", "demo_engine"}
FUNCTIONS = (
    "datasets.refhl.read_annotations", "bench.accuracy.evaluate.evaluate", "calibration.calibrate.calibrate",
    "training.train.train", "export.build.build_engine", "datasets.convert.convert.convert",
    "reading.load.load_slice", "reading.load.load_slices", "writing.write_nifti", "writing.write_rtstruct",
    "writing.write_sc", "writing.write_seg", "writing.write_sr",
)  # fmt: skip


def test_every_public_call_cuts_the_chain_of_its_errors() -> None:
    calls = {
        name: getattr(import_module(f"lsms_rt.{m}"), n) for name in FUNCTIONS for m, _, n in [name.rpartition(".")]
    }
    home = import_module("lsms_rt.datasets.refhl")
    for owner in (*(getattr(lsms_rt, name) for name in lsms_rt.__all__), home.Annotation):
        if isinstance(owner, type) and not issubclass(owner, Exception):
            public = {n: v for n, v in vars(owner).items() if not n.startswith("_") and callable(v)}
            calls |= {f"{owner.__name__}.{n}": v for n, v in public.items()}
    calls["Segmenter.__init__"], calls["Segmenter._asked"] = (
        vars(lsms_rt.Segmenter)[name] for name in ("__init__", "_asked")
    )
    left = {n for n, v in calls.items() if not hasattr(v, "__wrapped__") and n.rpartition(".")[2] not in PLAIN}
    assert not left


def test_an_error_that_is_located_keeps_its_kind_and_attributes() -> None:
    reading = object()
    found = errors.located(errors.SentenceNotUnderstoodError("it negates", reading), "text[2]: ")
    assert type(found) is errors.SentenceNotUnderstoodError and found.reading is reading
    assert str(found) == "text[2]: it negates"
    rows = errors.located(errors.DatasetError("a.csv", ["row 1: no mask", "row 2: no mask"], 2), "input 1:\n")
    assert rows.problems == ["row 1: no mask", "row 2: no mask"]
    assert str(rows).startswith("input 1: a.csv: ") and "\n" not in str(rows)
