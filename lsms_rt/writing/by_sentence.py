"""The results of an input, sorted by their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lsms_rt.errors import InputError

from .caption import NOTHING_FOUND, understood_text
from .result import Result

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceResults(Generic[R]):
    """One sentence and its results.

    Attributes:
        number: of the sentence, from 1, by its first result.
        name: "Lesion"; of several sentences, "Lesion 2".  It names the lesion in every file, without the sentence.
        results: one per slice.
    """

    number: int
    name: str
    results: tuple[R, ...]

    @property
    def found(self) -> tuple[R, ...]:
        """The results of the slices in which something was found."""
        return tuple(result for result in self.results if result.mask.any())

    @property
    def understood(self) -> str:
        """Whether the engine understands the sentence: "yes", "partly" or "no"."""
        return self.results[0].understood

    @property
    def label(self) -> str:
        """The name, that nothing was found, and that the sentence is not wholly understood; at most 64 characters."""
        nothing = "" if self.found else NOTHING_FOUND
        return ", ".join(filter(None, (self.name, nothing, understood_text(self.understood))))

    def description(self, include_text: bool, limit: int) -> str:
        """Return the sentence, how it is read and whether it is understood, in one line; "" if nothing is to be said.

        Args:
            include_text: whether to tell the sentence, which may contain a patient's data.
            limit: characters that the attribute holds.

        Raises:
            InputError: the line is longer.
        """
        sentence, read_as = " ".join(self.results[0].text.split()), self.results[0].read_as
        parts = [understood_text(self.understood)]
        if include_text:
            parts = [sentence, *([f"read as: {read_as}"] if read_as not in (sentence, "") else []), *parts]
        line = "; ".join(filter(None, parts))
        if len(line) > limit:
            holds = f"a DICOM object holds at most {limit} characters of it"
            raise InputError(f"a sentence of {len(line)} characters, and {holds}; omit the sentence")
        return line


def by_sentence(results: Sequence[R]) -> list[SentenceResults[R]]:
    """Sort results by their sentences, which keep the order of their first results; InputError if there are none."""
    if not results:
        raise InputError("there are no results to write; give at least one")
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(result.text, []).append(result)
    return [
        SentenceResults(number=n, name="Lesion" if len(groups) == 1 else f"Lesion {n}", results=tuple(group))
        for n, group in enumerate(groups.values(), 1)
    ]
