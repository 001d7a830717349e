"""What a sentence of RefHL-Phantom speaks of, by the meaning that the data set records."""

from __future__ import annotations

import re

from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.phantom.queries import ORDERS

_ORDERS = tuple(order.replace(" ", "-") for order in ORDERS)
_WORDS = {"low": "density", "high": "density", "left": "lobe", "right": "lobe", "small": "size", "large": "size"}


def words_of(query: str) -> list[str]:
    """Split a meaning into its words; what stands in parentheses, the other lesion of a relation, is left out."""
    return [word for word in re.sub(r"\(.*\)", "()", query).split("+") if word]


def kind_of(query: str) -> str:
    """Return the kind of a sentence, e.g. "density + lobe"; "" for a data set that records no meanings.

    A comparison ("largest", "anterior to") is a kind of its own, whatever else is said; so is a size.
    """
    words = words_of(query)
    if not words:
        return ""
    if any(word.endswith("()") for word in words):
        return "relation"
    if any(word.endswith(_ORDERS) for word in words):
        return "order"
    named = {_kind_of_word(word) for word in words}
    if "size" in named:
        return "size"
    return " + ".join(name for name in ("density", "enhancement", "type", "lobe") if name in named) or "any"


def _kind_of_word(word: str) -> str:
    if word in TYPES:
        return "type"
    return "enhancement" if word.startswith("enh-") else _WORDS.get(word, "")


def type_of(query: str) -> str:
    """Return the lesion type that a sentence names; "" if it names none."""
    return next((word for word in words_of(query) if word in TYPES), "")
