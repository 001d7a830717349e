"""What may be said to an engine, by category."""

from __future__ import annotations

from typing import Any

from .contract import Phrases, phrases_of
from .reader import Reader

# Of a category of the table that is shown, at most.
SHOWN = 12


def words_of(reader: Reader) -> dict[str, Any]:
    """List the words of an engine, in plain types.

    Returns:
        ``language``; ``open``, whether its vocabulary takes other words, too; ``groups``: category -> groups of words
        that mean the same, each with those that are ``known`` and those that are read as the first of them (``also``);
        ``segments``, how segments are read, "" where the engine knows them; ``left_out``: words that
        are, since they do not say which lesion is meant; ``refused``: examples of words that are.
    """
    contract, lexicon = reader.contract, reader.lexicon
    groups: dict[str, list[dict[str, list[str]]]] = {}
    for category, rows in contract.groups.items():
        for row in rows:
            known = [text for text in row if lexicon.knows_all(text)]
            if known:
                also = [text for text in row if text not in known]
                groups.setdefault(category, []).append({"known": known, "also": also})
    return {
        "language": contract.language,
        "open": lexicon.is_open,
        "groups": groups,
        "segments": "" if reader.knows_segments else "segments II to IV: left lobe; V to VIII: right lobe",
        "left_out": [] if lexicon.is_open else _examples(contract.harmless, None),
        "refused": {kind: _examples(phrases) for kind, phrases in (contract.always | _unknown(reader)).items()},
    }


def _unknown(reader: Reader) -> dict[str, Phrases]:
    """Return what the engine would overlook."""
    knows = reader.lexicon.knows_all
    return {
        kind: phrases_of(text for text in _examples(phrases, None) if not knows(text))
        for kind, phrases in reader.contract.lost.items()
    }


def _examples(phrases: Phrases, count: int | None = SHOWN) -> list[str]:
    return [" ".join(keys) for found in phrases.values() for keys in found][:count]
