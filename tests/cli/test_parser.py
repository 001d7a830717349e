"""Usage errors, help texts and defaults."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lsms_rt.bench.options import EngineOptions, PeersOptions
from lsms_rt.calibration.options import CalibrateOptions
from lsms_rt.cli.arguments import options_from, runtime_options
from lsms_rt.cli.main import COMMANDS, main
from lsms_rt.cli.parser import make_parser
from lsms_rt.datasets.phantom.spec import PhantomSpec
from lsms_rt.export.options import BuildOptions, GateOptions, PlanOptions
from lsms_rt.reading.stated import Stated
from lsms_rt.runs.request import Request


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["predict"], ["build-engine"], ["phantom", "-o", "x", "--cases", "many"]],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("phantom", "--seed", "5000"),
        ("phantom", "--cases", "0"),
        ("phantom", "--workers", "-2"),
        ("phantom", "--matrix", "1e9"),
        ("build-engine", "--image-size", "x"),
        ("build-engine", "--max-batch", "0"),
        ("build-engine", "--verify-slices", "-1"),
    ],
)
def test_numbers_out_of_bounds(capsys: pytest.CaptureFixture[str], command: str, option: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-o", "never-written", option, value])
    assert caught.value.code == 2
    shown = "the value" if value == "x" else repr(value)
    assert f"argument {option}: {shown} is not a whole number" in capsys.readouterr().err
    assert not Path("never-written").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predcit"], "argument COMMAND: did you mean predict? (see lsms-rt --help)"),
        (["dance"], "argument COMMAND: choose from 'build-engine', "),
        (["predict", "demo", "x", "--text", "a", "--seg-type", "x"], "argument --seg-type: choose from 'binary', "),
        (["predict", "demo", "x", "--text", "a", "--foo=0.4"], "unknown option (see lsms-rt predict --help)"),
        (["bench", "peers", "--foo"], "unknown option --foo (see lsms-rt bench peers --help)"),
        (["--verison", "doctor"], "unknown option; did you mean --version? (see lsms-rt --help)"),
        (["predict", "demo", "x", "--text", "a", "--empty-sge"], "unknown option; did you mean --empty-seg? (see"),
        (["predict", "demo", "x", "--text", "a", "--DOE^J"], "unrecognized arguments (1); quote sentences"),
        (["predict", "demo", "x", "--text", "a", "--window", "x", "3"], "argument --window: not a number (see"),
    ],
)
def test_messages_name_options_and_no_values(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert words in err and "0.4" not in err and "DOE" not in err


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = make_parser(COMMANDS)._subparsers._group_actions
    return dict(action.choices)


@pytest.mark.parametrize("command", sorted(subparsers()))
def test_every_option_with_a_default_shows_it(command: str) -> None:
    parser = subparsers()[command]
    text = " ".join(parser.format_help().split())
    for action in parser._actions:
        if not action.option_strings or action.required or action.default == argparse.SUPPRESS:
            continue
        if action.default is None or action.default == ():
            assert "(default:" in (action.help or ""), action.option_strings
        elif action.default is not False:
            assert f"(default: {action.default})" in text, action.option_strings


def test_defaults_are_those_of_the_options() -> None:
    """An option that a dataclass does not know, or knows by another default, would be ignored."""
    parser = make_parser(COMMANDS)
    arguments = parser.parse_args(["build-engine", "-o", "x"])
    plan, gate = options_from(PlanOptions, arguments), options_from(GateOptions, arguments)
    # None: the default, or with --from the engine's own.
    assert arguments.precision is None
    arguments.precision = BuildOptions.precision
    assert options_from(BuildOptions, arguments, plan=plan, gate=gate) == BuildOptions()
    assert options_from(CalibrateOptions, parser.parse_args(["calibrate", "a", "b", "-o", "x"])) == CalibrateOptions()
    assert options_from(PhantomSpec, parser.parse_args(["phantom", "-o", "x"])) == PhantomSpec()
    arguments = parser.parse_args(["predict", "a", "b", "--text", "c"])
    stated = options_from(Stated, arguments)
    assert options_from(Request, arguments, stated=stated, texts=False) == Request()
    arguments = parser.parse_args(["bench peers"])
    assert options_from(PeersOptions, arguments, seed=0, names=None) == PeersOptions()
    assert EngineOptions(**runtime_options(parser.parse_args(["bench", "a"]))) == EngineOptions()


@pytest.mark.parametrize("command", [["bench", "demo"], ["bench", "peers"], ["bench", "scaling"]])
def test_a_file_after_json_names_the_new_option(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--json", "record.json"])
    assert caught.value.code == 2
    assert "--json takes no file, it prints to stdout; use -o FILE" in capsys.readouterr().err


def test_help_needs_no_library_but_numpy() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "scipy", "pydicom", "PIL", "matplotlib", "tqdm", "transformers"}
    code = (
        "import sys\nfrom lsms_rt.cli.main import COMMANDS\nfrom lsms_rt.cli.parser import make_parser\n"
        f"make_parser(COMMANDS).format_help()\nprint(sorted(set(sys.modules) & {heavy!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
