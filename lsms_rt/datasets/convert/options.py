"""Options of ``lsms-rt convert``; the command line reads the defaults and limits from here."""

from __future__ import annotations

from dataclasses import dataclass

from lsms_rt.errors import InputError

KINDS = ("seg", "nnunet", "rexgroundingct", "m3d-refseg")
MAX_SLICES_PER_CASE = 1000
MAX_SEED = 2**31


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert, and how.

    Attributes:
        kind: layout of the source, one of ``KINDS``.
        slices_per_case: maximum number of slices of one scan; about a quarter of them have no lesion.
        limit: maximum number of scans, in the order of their names; None for all.
        seed: random seed of slices, sentences and splits.
        lesion_labels: labels that are lesions, with ``*`` as a wildcard; empty: by the words in them.
        organ_labels: labels that are the organ around the lesions, in the same way.
        license: the source's license; None for what its folder states.
        citation: how to cite the source; None for what its folder states.
        skip_bad: leave out scans that cannot be used, instead of refusing the whole source.
        names: show file names in messages about DICOM, and call cases by their PatientID instead of a number.
    """

    kind: str
    slices_per_case: int = 12
    limit: int | None = None
    seed: int = 0
    lesion_labels: tuple[str, ...] = ()
    organ_labels: tuple[str, ...] = ()
    license: str | None = None
    citation: str | None = None
    skip_bad: bool = False
    names: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind {self.kind!r}; choose {', '.join(KINDS)}")
        if not 1 <= self.slices_per_case <= MAX_SLICES_PER_CASE:
            raise InputError(f"--slices-per-case {self.slices_per_case}; give 1 to {MAX_SLICES_PER_CASE}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}; give 1 or more")
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"--seed {self.seed}; give 0 to {MAX_SEED - 1}")
