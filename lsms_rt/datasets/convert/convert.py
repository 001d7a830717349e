"""Convert a source to the RefHL-Seg layout: read scan by scan, choose slices, make or copy sentences, write."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.datasets.knowledge import LESIONS, MAX_LESIONS, picture_of
from lsms_rt.datasets.phantom.lesion import numbered
from lsms_rt.datasets.phantom.sheet import WINDOW, write_contact_sheet
from lsms_rt.datasets.png import write_labels
from lsms_rt.datasets.refhl import ANNOTATIONS
from lsms_rt.errors import DatasetError, InputError, chain_cut
from lsms_rt.privacy import label

from .card import card, facts_of
from .choose import choose_slices
from .given import Row, given_rows
from .lesions import SliceLesions, lesions_of
from .license import source_text
from .made import grammar_of, sentences_of
from .options import ConvertOptions
from .source import Source, SourceCase, Volume, source_name
from .splits import assign_splits, missing_splits
from .write import write_image, write_rows, write_table

# Kind -> its module, which has ``find_cases``; imported when it is used.
READERS = {"seg": "seg", "nnunet": "nnunet", "rexgroundingct": "rexgroundingct", "m3d-refseg": "m3d_refseg"}
# HU that the contact sheet shows, where it is not the liver's window: lungs.
WINDOWS = {"rexgroundingct": (-1350.0, 150.0)}


@dataclass
class Report:
    """What was written.

    Attributes:
        cases: number of scans.
        slices: number of slices.
        lines: the table.
        splits: number of scans by split.
        unused: number of slices that could not be used, by reason.
        problems: scans that were left out, one line each.
        notes: what a user must know.
    """

    cases: int = 0
    slices: int = 0
    lines: list[dict[str, str]] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def false_sentences(self) -> int:
        """Return the number of sentences that are true of nothing in their slice."""
        return sum(line["mask"].endswith("_none.png") for line in self.lines)


@chain_cut
def convert(source: Path, target: Path, options: ConvertOptions) -> Report:
    """Convert the folder ``source`` and write the data set ``target``, which must be new or empty.

    Raises:
        DatasetError: scans cannot be used, and ``options.skip_bad`` is off; its ``problems`` list all of them.
        InputError: another layout, nothing to convert, or a target that is not empty.
        MissingDependencyError: a package is missing that reads the source.
    """
    if not source.is_dir():
        raise InputError(f"{source_name(source)}: no such folder; give the folder of the source data set")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{label(target, 'the output')} exists and is not empty; give a new folder with -o")
    found: Source = importlib.import_module(f".{READERS[options.kind]}", __package__).find_cases(source, options)
    _check_names(found.cases)
    cases, notes = assign_splits(found.cases, options.seed)
    report = Report(notes=[*found.notes, *notes], problems=list(found.problems))
    with work_folder(target) as place:
        folder = place / "converted"
        # It holds slices of patients.
        folder.mkdir(mode=0o700)
        _write_cases(folder, cases[: options.limit], options, report)
        if report.problems and not (options.skip_bad and report.cases):
            raise DatasetError(source_name(source), report.problems, len(cases[: options.limit]), unit="scans")
        if not report.lines:
            raise InputError(
                f"{source_name(source)}: no slice of {report.cases} scans can be used ({_reasons(report.unused)})"
            )
        report.notes += [
            f"no scan is in split {name!r}; convert more scans, or choose another --seed"
            for name in missing_splits(report.splits)
        ]
        license, citation = options.license or found.license, options.citation or found.citation
        write_table(folder / ANNOTATIONS, report.lines)
        write_contact_sheet(folder, folder / "contact_sheet.png", window=WINDOWS.get(options.kind, WINDOW))
        facts = facts_of(options, report, license, citation, found.labels)
        (folder / "dataset.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "LICENSE-SOURCE.txt").write_text(source_text(options.kind, license, citation), encoding="utf-8")
        (folder / "README.md").write_text(card(facts), encoding="utf-8")
        move_folder(folder, target)
    if not license:
        report.notes.append("the source's folder states no license; look it up, and convert again with --license")
    return report


def _check_names(cases: Sequence[SourceCase]) -> None:
    """Raise InputError if two scans have one name: their files would be mixed."""
    name, count = Counter(case.case_id for case in cases).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} scans are called {name!r}; rename their files, so that all names differ")


def _write_cases(folder: Path, cases: Sequence[SourceCase], options: ConvertOptions, report: Report) -> None:
    from tqdm import tqdm

    by_split: dict[str, list[SourceCase]] = {}
    for case in cases:
        by_split.setdefault(case.split, []).append(case)
    for case in tqdm(cases, desc="scans", unit="scan", disable=None):
        try:
            report.lines += _write_case(folder, case, options, report, _others(by_split[case.split], case))
        except InputError as error:
            report.problems.append(f"{case.case_id}: {error}")
            continue
        report.cases += 1


def _write_case(
    folder: Path, case: SourceCase, options: ConvertOptions, report: Report, others: Sequence[str]
) -> list[dict[str, str]]:
    volume = case.read()
    # By the case's name, so that a case gives the same slices whatever other cases there are.
    name = hashlib.sha256(case.case_id.encode()).digest()[:8]
    rng = np.random.default_rng([options.seed, int.from_bytes(name, "big")])
    chosen = choose_slices(volume, options.slices_per_case, rng)
    report.unused += chosen.unused
    lines: list[dict[str, str]] = []
    for n in sorted(chosen.with_lesions + chosen.empty):
        # Who describes findings does not describe every lesion; labels are taken for complete.
        found = None if case.sentences else lesions_of(volume, n)
        if found is not None and len(found.lesions) > MAX_LESIONS:
            report.unused[f"more than {MAX_LESIONS} lesions"] += 1
            continue
        rows = given_rows(volume, n, others, rng) if found is None else _made_rows(volume, n, found, rng)
        if not rows:
            report.unused["no sentence that readers would agree on"] += 1
            continue
        image = write_image(folder, options.kind, case.case_id, volume, n)
        lines += write_rows(folder, case.case_id, case.split, n, image, rows)
        if found is not None:
            labels = numbered(found.lesions, volume.slices[n].hu.shape)
            write_labels(picture_of(folder, LESIONS, case.case_id, lines[-1]["slice_id"]), labels)
        report.slices += 1
    report.splits[case.split] += bool(lines)
    return lines


def _made_rows(volume: Volume, n: int, found: SliceLesions, rng: np.random.Generator) -> list[Row]:
    organs = [name for name, mask in volume.organs.items() if mask[n].any()]
    rows = []
    for sentence in sentences_of(found.lesions, grammar_of(found, volume.types, organs, rng)):
        mask = np.zeros(volume.slices[n].hu.shape, bool)
        for lesion in sentence.targets:
            mask |= lesion.mask
        types = sorted({lesion.type for lesion in sentence.targets if lesion.type})
        rows.append(Row(sentence.text, mask, sentence.query.key(), "+".join(types)))
    return rows


def _others(cases: Sequence[SourceCase], case: SourceCase) -> list[str]:
    """Return the sentences of other patients of the same split: no split hears the sentences of another."""
    return [text for other in cases if other.patient != case.patient for text in other.sentences]


def _reasons(unused: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in unused.items()) or "no lesion in any slice"
