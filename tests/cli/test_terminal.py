"""Messages and progress on stderr."""

from __future__ import annotations

import sys

import pytest

from lsms_rt.cli.terminal import progress_bar, show_step


def test_a_progress_bar_counts_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress_bar(iter("abc"), 3)) == list("abc")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress_bar(iter("abc"), 3)) == list("abc")
    assert "/3 [" in capsys.readouterr().err


def test_a_phase_overwrites_its_line_until_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(3):
        show_step("tactics", step, 2)
    lines = capsys.readouterr().err.split("\r")[1:]
    assert [line.split()[-1] for line in lines] == ["0/2", "1/2", "2/2"]
    assert [line.endswith("\n") for line in lines] == [False, False, True]
