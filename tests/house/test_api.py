"""docs/api.md says what the code says."""

from __future__ import annotations

from api_reference import PAGE, filled, wrapped


def test_the_page_is_the_one_of_the_code() -> None:
    """``make tables`` writes it anew."""
    text = PAGE.read_text()
    assert filled(text) == text


def test_a_long_item_is_broken_between_words() -> None:
    item = wrapped("- `f(a, b)`: " + "word " * 40)
    assert len(item.splitlines()) == 2
    assert all(len(line) <= 120 for line in item.splitlines())
    assert "`f(a, b)`" in item
