"""The file that says which archive to watch, and which sentences to ask of which series."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError, located
from lsms_rt.runs.jobs import jobs_of

from .retry import LONGEST_DUE_S

MAX_BYTES = 2**20
# the bundled engine
DEMO = "demo"
# what may be stored beside Segmentation and report
ALSO = ("sc", "rtstruct")
CONDITIONS = ("series_description", "body_part", "modality", "slice_thickness_mm")
# the reader refuses images of any other
MODALITIES = ("CT",)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an image of a series says of it; None where it says nothing.

    Attributes:
        patient: PatientID, PatientName and PatientBirthDate, in DICOM's JSON; no rule asks for them.
    """

    modality: str | None = None
    series_description: str | None = field(default=None, repr=False)
    body_part: str | None = None
    slice_thickness_mm: float | None = None
    manufacturer: str | None = None
    model: str | None = None
    patient: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which series are asked which sentences; all conditions that are given must hold.

    Attributes:
        sentences: what to ask, cleaned.
        series_description: found anywhere in the description, in upper or lower case; None for any.
        body_part: values of BodyPartExamined in upper case; empty for any.
        modality: values of Modality; empty for any.
        thickness_mm: least and largest slice thickness; None for any.
    """

    sentences: tuple[str, ...] = field(repr=False)
    series_description: re.Pattern[str] | None = None
    body_part: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    thickness_mm: tuple[float, float] | None = None

    def matches(self, facts: Facts) -> bool:
        """Return whether all conditions hold; a condition on what a series does not say, does not."""
        pattern, thickness = self.series_description, facts.slice_thickness_mm
        if pattern is not None and not pattern.search(facts.series_description or ""):
            return False
        if self.body_part and (facts.body_part or "").upper() not in self.body_part:
            return False
        if self.modality and facts.modality not in self.modality:
            return False
        low, high = self.thickness_mm or (0.0, 0.0)
        return self.thickness_mm is None or (thickness is not None and low <= thickness <= high)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a worker does.

    Attributes:
        dicomweb: URL of the archive's DICOMweb.
        orthanc: URL of Orthanc's own interface, for its changes and to delete; None for another archive.
        ca: file with the certificates to trust; None for the system's.
        engine: engine directory, or "demo".
        digest: the digest that it must have; None: no check.
        state: folder of the ledger and the audit log.
        also: what is stored beside Segmentation and report, of ``ALSO``.
        start: "new" for series that come after the first start, "all" for those that are there, too.
        days: how far back a study's date may lie for polling by QIDO to see it; 0 for any.
        poll_s: seconds between two looks at the archive.
        quiet_s: seconds for which a series must not grow before it is fetched.
        max_attempts: failed attempts of a series, of the kind that may pass, before it is given up.
        replace: whether results of a series that has grown since are deleted, once the new ones are stored.
        rules: in their order; the first that matches is used.
    """

    dicomweb: str
    orthanc: str | None
    ca: Path | None
    engine: str
    digest: str | None
    state: Path
    also: tuple[str, ...]
    start: str
    days: int
    poll_s: float
    quiet_s: float
    max_attempts: int
    replace: bool
    rules: tuple[Rule, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides what is stored for which series."""
        own = ("sentences", "body_part", "modality", "thickness_mm")
        rows = [
            [rule.series_description and rule.series_description.pattern, *(getattr(rule, name) for name in own)]
            for rule in self.rules
        ]
        return sha256_of_json([self.also, rows])

    def match(self, facts: Facts) -> tuple[int, Rule] | None:
        """Return the first rule that matches with its number, from 1; None if none does."""
        return next(((n, rule) for n, rule in enumerate(self.rules, 1) if rule.matches(facts)), None)


def read_rules(path: Path) -> Rules:
    """Read a rules file (YAML); docs/worker.md describes it.  Paths in it are relative to its folder.

    Raises:
        InputError: it cannot be read, or says something else; messages repeat nothing of it.
    """
    top = _Table(_parsed(path), "the rules file")
    archive = top.table("archive")
    dicomweb, orthanc, ca = archive.url("dicomweb"), archive.url("orthanc", None), archive.text("ca", None)
    archive.end()
    also = top.texts("also", ())
    if set(also) - set(ALSO):
        raise top.wrong("also", f"a list of {', '.join(ALSO)}; Segmentation and report are always stored")
    rows, engine = top.take("rules", ()), str(top.text("engine"))
    if not isinstance(rows, list) or not rows:
        raise top.wrong("rules", "a list with at least one rule")
    found = Rules(
        dicomweb=str(dicomweb),
        orthanc=orthanc,
        ca=None if ca is None else path.parent / ca,
        engine=engine if engine == DEMO else str(path.parent / engine),
        digest=top.text("digest", None),
        state=path.parent / str(top.text("state", f"{path.stem}.state")),
        also=also,
        start=top.choice("start", ("new", "all")),
        days=int(top.number("days", 7, 0, 36500)),
        poll_s=top.number("poll_s", 10, 0.1, 3600),
        quiet_s=top.number("quiet_s", 60, 0, LONGEST_DUE_S),
        max_attempts=int(top.number("max_attempts", 12, 1, 1000)),
        replace=top.choice("superseded", ("replace", "keep")) == "replace",
        rules=tuple(_rule(_Table(row, f"rule {n}")) for n, row in enumerate(rows, 1)),
    )
    top.end()
    return found


def _rule(row: _Table) -> Rule:
    if not set(row.rest) & set(CONDITIONS):
        raise InputError(f"{row.where}: no condition; give one of {', '.join(CONDITIONS)}, e.g. modality: CT")
    thickness = None
    if "slice_thickness_mm" in row.rest:
        limits = row.table("slice_thickness_mm")
        thickness = limits.number("min", 0, 0, 1000), limits.number("max", 1000, 0, 1000)
        limits.end()
        if thickness[0] > thickness[1]:
            raise row.wrong("slice_thickness_mm", f"min {thickness[0]:g} up to max {thickness[1]:g}; exchange them")
    pattern = row.text("series_description", None)
    try:
        description = None if pattern is None else re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise row.wrong("series_description", f"a regular expression (position {error.pos})") from error
    modality = row.texts("modality", ())
    if set(modality) - set(MODALITIES):
        raise row.wrong("modality", f"{', '.join(MODALITIES)}: images of others are not read")
    sentences = row.texts("sentences")
    try:
        (job,) = jobs_of([Path()], sentences)
    except InputError as error:
        raise located(error, f"{row.where}: ") from error
    parts = tuple(part.upper() for part in row.texts("body_part", ()))
    row.end()
    return Rule(
        sentences=job.texts, series_description=description, body_part=parts, modality=modality, thickness_mm=thickness
    )


class _Table:
    """A table of the file, whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InputError(f"{where}: not a table of keys and values; see docs/worker.md")
        self.where, self.rest, self.known = where, dict(value), list[str]()

    def wrong(self, key: str, what: str) -> InputError:
        return InputError(f"{self.where}: {key} is not {what}")

    def take(self, key: str, *default: Any) -> Any:
        self.known.append(key)
        if key in self.rest:
            return self.rest.pop(key)
        if not default:
            raise InputError(f"{self.where}: no {key}; add it")
        return default[0]

    def table(self, key: str) -> _Table:
        return _Table(self.take(key), f"{self.where}, {key}")

    def text(self, key: str, *default: str | None) -> str | None:
        value = self.take(key, *default)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.wrong(key, "a text; write one in quotes")
        return value

    def texts(self, key: str, *default: Sequence[str]) -> tuple[str, ...]:
        value = self.take(key, *default)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(one, str) and one.strip() for one in values):
            raise self.wrong(key, "a text or a list of texts; write each in quotes")
        if not values and not default:
            raise self.wrong(key, "a list with at least one text")
        return tuple(values)

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.take(key, choices[0])
        if value not in choices:
            raise self.wrong(key, " or ".join(choices))
        return str(value)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def url(self, key: str, *default: None) -> str | None:
        value = self.text(key, *default)
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise self.wrong(key, "a URL, e.g. http://127.0.0.1:8042/dicom-web")
        if parts.username or parts.password:
            raise self.wrong(key, "without a password; set LSMS_RT_ARCHIVE_USER and LSMS_RT_ARCHIVE_PASSWORD")
        return value.rstrip("/")

    def end(self) -> None:
        """Raise InputError if keys are left."""
        if not self.rest:
            return
        close = get_close_matches(str(next(iter(self.rest))), self.known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(self.known)}"
        count = len(self.rest)
        raise InputError(f"{self.where}: {count} unknown {'key' if count == 1 else 'keys'}; {hint}")


def _parsed(path: Path) -> Any:
    yaml: Any = importlib.import_module("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses a table with a key twice, of which one would be lost."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [str(key.value) for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise InputError(f"the rules file: a key is there twice (line {node.start_mark.line + 1} ff.)")
            return super().construct_mapping(node, deep)

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the rules file is larger than {MAX_BYTES >> 20} MiB")
        # a subclass of the safe loader
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"the rules file cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise InputError(f"the rules file is not YAML in UTF-8{place}; see docs/worker.md") from error
