"""Run the command line as a user does."""

from __future__ import annotations

import pytest

from lsms_rt.cli.main import main
from lsms_rt.data import DATA

SLICE = str(DATA / "examples" / "phantom_1.dcm")
TEXT = "the lesion in the right lobe of the liver"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], code: int, words: str, *arguments: str) -> None:
    """Assert that a command fails with this exit code and one line that contains ``words``."""
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
