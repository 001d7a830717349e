"""The rules file: what it may say, what is refused and how, which rule a series meets."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_site import RULES

from lsms_rt.archive_worker.rules import Facts, Rules, read_rules
from lsms_rt.errors import InputError

RULE = "rules:\n  - series_description: liver"


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return read_rules(path)


def changed(old: str, new: str) -> str:
    assert old in RULES
    return RULES.replace(old, new)


def test_a_full_file(tmp_path: Path) -> None:
    more = "state: here\ndigest: sha256:00\nalso: [sc, rtstruct]\ndays: 2\nsuperseded: keep\nmax_attempts: 3\n"
    found = rules(tmp_path, changed("engine: demo\n", f"engine: my.engine\n{more}"))
    assert (found.engine, found.state) == (str(tmp_path / "my.engine"), tmp_path / "here")
    assert (found.digest, found.also, found.days) == ("sha256:00", ("sc", "rtstruct"), 2)
    assert (found.replace, found.max_attempts, found.orthanc) == (False, 3, "http://archive.test")
    assert found.rules[0].sentences == ("the lesion in the left lobe of the liver",)


def test_defaults(tmp_path: Path) -> None:
    found = rules(tmp_path, changed("start: all\npoll_s: 0.1\nquiet_s: 0\n", ""))
    assert (found.engine, found.state, found.start) == ("demo", tmp_path / "rules.state", "new")
    assert (found.poll_s, found.quiet_s, found.max_attempts, found.replace) == (10, 60, 12, True)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not a table"),
        ("- 1\n", "not a table"),
        ("archive: [\n", r"not YAML in UTF-8 \(line 2, column 1\)"),
        (RULES + "engine: demo\n", "a key is there twice"),
        (changed("engine: demo", "Doe^Jane: x"), "no engine"),
        (changed("engine: demo", "engine: demo\nstat: x"), "1 unknown key; did you mean state?"),
        (changed("series_description", "serie_description"), "no condition"),
        (changed(RULE, f"{RULE}\n    body_parts: x"), "rule 1: 1 unknown key; did you mean body_part?"),
        (changed("start: all", "start: tomorrow"), "start is not new or all"),
        (changed("quiet_s: 0", "quiet_s: true"), "quiet_s is not a number from 0 to 3600"),
        (changed("quiet_s: 0", "quiet_s: -1"), "quiet_s is not a number"),
        (changed("start: all", "also: [jpeg]"), "also is not a list of sc, rtstruct"),
        (changed("http://archive.test/dicom-web", "ftp://archive.test"), "archive: dicomweb is not a URL"),
        (changed("http://archive.test/dicom-web", "http://u:p@archive.test"), "dicomweb is not without a password"),
        (changed("series_description: liver", "series_description: '('"), "a regular expression .position"),
        (changed("series_description: liver", "modality: MR"), "rule 1: modality is not CT"),
        (changed("series_description: liver", "body_part: NO"), "body_part is not a text"),
        (changed("series_description: liver", "slice_thickness_mm: {min: 5, max: 1}"), "min 5 up to max 1"),
        (changed("sentences: the lesion in the left lobe of the liver", "sentences: []"), "at least one text"),
        (changed("sentences: the lesion in the left lobe of the liver", "sentences: ['']"), "sentences is not a text"),
        (changed("sentences: the lesion in the left lobe of the liver", "sentences: [a b, A B]"), "rule 1: .*same"),
        (RULES[: RULES.index("rules:")], "rules is not a list"),
    ],
)
def test_what_is_wrong_is_told_without_repeating_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        rules(tmp_path, text)
    assert "Doe" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "conditions, facts, matches",
    [
        ("series_description: liver", Facts(series_description="CT LIVER portal"), True),
        ("series_description: ^liver", Facts(series_description="CT LIVER portal"), False),
        ("series_description: liver", Facts(), False),
        ("body_part: [abdomen, LIVER]", Facts(body_part="Abdomen"), True),
        ("body_part: LIVER", Facts(), False),
        ("modality: CT", Facts(modality="CT"), True),
        ("modality: CT", Facts(modality="SEG"), False),
        ("slice_thickness_mm: {min: 1, max: 5}", Facts(slice_thickness_mm=5.0), True),
        ("slice_thickness_mm: {max: 5}", Facts(slice_thickness_mm=5.1), False),
        ("slice_thickness_mm: {max: 5}", Facts(), False),
        ("modality: CT\n    series_description: liver", Facts(modality="CT", series_description="head"), False),
    ],
)
def test_all_conditions_must_hold(tmp_path: Path, conditions: str, facts: Facts, matches: bool) -> None:
    found = rules(tmp_path, changed("series_description: liver", conditions))
    assert (found.match(facts) is not None) == matches


def test_the_first_rule_that_matches_is_used(tmp_path: Path) -> None:
    found = rules(tmp_path, RULES + "  - modality: CT\n    sentences: the cyst\n")
    match = found.match(Facts(modality="CT", series_description="liver"))
    assert match is not None
    assert match[0] == 1
    match = found.match(Facts(modality="CT", series_description="head"))
    assert match is not None
    assert match[0] == 2
