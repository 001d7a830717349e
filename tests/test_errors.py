"""The errors' old names, and what a message may look like."""

from __future__ import annotations

import pytest

from lsms_rt import errors


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
