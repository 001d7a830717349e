"""The results of an input, sorted by their sentences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lsms_rt.errors import InputError

from .caption import NOTHING_FOUND, incomplete_text, understood_text
from .result import Result

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceResults(Generic[R]):
    """One sentence and its results.

    Attributes:
        number: of the sentence, from 1, by its first result.
        name: "Lesion"; of several sentences, "Lesion 2".  It names the lesion in every file, without the sentence.
        results: one per slice.
        missing: number of images of the series for which it has no result.
    """

    number: int
    name: str
    results: tuple[R, ...]
    missing: int = 0

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
        """Return the sentence, how it is read, whether it is understood, and what is missing, in one line.

        If that is too long, first how it is read is left out, then the end of the sentence, which "..." tells.

        Args:
            include_text: whether to tell the sentence, which may contain a patient's data.
            limit: characters that the attribute holds.

        Returns:
            The line; "" if nothing is to be said.
        """
        always = "; ".join(filter(None, (understood_text(self.understood), incomplete_text(self.missing))))
        if not include_text:
            return always
        sentence, read_as = " ".join(self.results[0].text.split()), self.results[0].read_as
        room = limit - (len(always) + 2 if always else 0)
        read = f"; read as: {read_as}" if read_as not in (sentence, "") else ""
        if len(sentence) + len(read) <= room:
            sentence += read
        elif len(sentence) > room:
            sentence = f"{sentence[: room - 3].rstrip()}..."
        return "; ".join(filter(None, (sentence, always)))


def by_sentence(results: Sequence[R]) -> list[SentenceResults[R]]:
    """Sort results by their sentences, which keep the order of their first results.

    Raises:
        InputError: there are no results, or two of one slice for one sentence.
    """
    if not results:
        raise InputError("there are no results to write; give at least one")
    first: object = results[0]
    if isinstance(first, (list, tuple)):
        flat = "[result for of_slice in results for result in of_slice]"
        raise InputError(f"results of several sentences are a list per slice; give them as one list: {flat}")
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(result.text, []).append(result)
    for group in groups.values():
        check_once([id(result.ct) for result in group])
    return [
        SentenceResults(number=n, name="Lesion" if len(groups) == 1 else f"Lesion {n}", results=tuple(group))
        for n, group in enumerate(groups.values(), 1)
    ]


def check_once(slices: Sequence[Hashable]) -> None:
    """Raise InputError if a slice, by whatever tells it from others, has two results for one sentence."""
    twice = len(slices) - len(set(slices))
    if twice:
        raise InputError(f"{len(slices)} results for one sentence, {twice} of a slice that has one; ask it once")
