"""What is said beside the point: "Findings:", "all right,", "too small to characterize"."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Contract
from .words import Word, places_of


def without_asides(words: Sequence[Word], contract: Contract) -> list[Word]:
    """Return the words without headings and asides of a report, and without "all right" where it is no side."""
    aside = places_of(words, contract.asides)
    kept = [word for at, word in enumerate(words) if at not in aside]
    if [word.key for word in kept[:2]] == ["all", "right"] and len(kept) > 2:
        after = kept[2]
        # "all right segment lesions" names a side.
        if after.before.strip() not in ("", "-") or after.key in contract.commands - contract.segment_words:
            del kept[:2]
    return [word for at, word in enumerate(kept) if not _is_heading(kept, at, contract)]


def _is_heading(words: Sequence[Word], at: int, contract: Contract) -> bool:
    """Whether a word is one with a colon, and begins the sentence or stands after a full stop."""
    begins = at == 0 or bool(set(".;:") & set(words[at].before))
    ends = at + 1 < len(words) and words[at + 1].before.startswith(":")
    return begins and ends and words[at].key in contract.headings
