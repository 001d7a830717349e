"""The command-line parser: error messages, help format, and the list of commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from lsms_rt import __version__

from .exit_codes import ExitCode

LEVELS = ("debug", "info", "warning", "error")
NOT_FOR_DIAGNOSIS = "Research software, not a medical device."
# The name of an option, and its value, which messages leave out.
OPTION = re.compile(r"(--[a-z][a-z-]*)(?:=.*)?", re.DOTALL)
EPILOG = """\
first steps:
  lsms-rt demo                              see what the bundled engine answers
  lsms-rt predict demo scan.dcm --text "the cyst in the left lobe of the liver" -o out
  lsms-rt predict --help                    all options of a command

exit codes:
  0  success
  1  unexpected error
  2  wrong options or input
  3  something is missing on this machine
  4  engine missing or rejected
  5  partial success: some files could not be read or written
"""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ``lsms-rt``.

    Attributes:
        name: one word, or two for a subcommand of ``bench``.
        help: one line.
        add_arguments: declares the command's arguments.
        run: does the work; returns an exit code, or None for success.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


class _Parser(argparse.ArgumentParser):
    """Reports usage errors in one line, like all other errors.

    Messages name options, not their values: a sentence or a file name may identify a patient.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments here: argparse would leave them to the parser of all commands."""
        found, unknown = super().parse_known_args(args, namespace)
        options = [match[1] for match in map(OPTION.fullmatch, unknown) if match]
        if options:
            known = self._option_string_actions
            # A command that hides names repeats nothing, and before a command it is not known which one it is.
            hides = "--names" in known or self._subparsers is not None
            close = get_close_matches(options[0], known, 1, cutoff=0.75)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unknown option{'' if hides else f' {options[0]}'}{hint}")
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Reject a value that is not a choice; suggest the nearest choice, or list all of them.

        Python versions word argparse's own message differently.
        """
        if action.choices is None or value in action.choices:
            return
        choices = [str(one) for one in action.choices]
        close = get_close_matches(str(value), choices, 1, cutoff=0.75)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(map(repr, choices))}"
        raise argparse.ArgumentError(action, hint)

    def error(self, message: str) -> NoReturn:
        what, _, value = message.partition(": ")
        if what == "unrecognized arguments" and value.endswith(".json"):
            # version 0.1 wrote benchmark records with --json FILE
            message = "--json takes no file, it prints to stdout; use -o FILE to write a record"
        elif what == "unrecognized arguments":
            message = f"unrecognized arguments ({len(value.split())}); quote sentences that contain spaces"
        elif value.startswith("invalid float value"):
            message = f"{what}: not a number"
        elif value.startswith("invalid "):
            message = f"{what}: an {value.partition(': ')[0]}"
        elif value.startswith("ignored explicit argument"):
            message = f"{what}: takes no value"
        elif what.startswith("ambiguous option"):
            message = "ambiguous option; write it in full"
        self.exit(ExitCode.BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except "no value", which the option's own text explains."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        return action.help if default is None or default is False or default == () else super()._get_help_string(action)


class _HelpOfAll(_Help):
    """The same for the list of commands, whose names argparse would put on lines of their own."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 18


def make_parser(commands: Iterable[Command]) -> argparse.ArgumentParser:
    """Return the parser of ``lsms-rt``; the parsed namespace's ``run`` is the chosen command's function."""
    description = f"Text-prompted lesion segmentation in CT. {NOT_FOR_DIAGNOSIS}"
    parser = _Parser(prog="lsms-rt", description=description, epilog=EPILOG, formatter_class=_HelpOfAll)
    parser.add_argument("--version", action="version", version=f"lsms-rt {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    for command in commands:
        sub = subparsers.add_parser(
            command.name, help=command.help, description=f"{command.help[0].upper()}{command.help[1:]}.",
            formatter_class=_Help,
        )  # fmt: skip
        command.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="print where an error was raised")
        sub.add_argument("--log-level", choices=LEVELS, default="warning", help="log verbosity")
        sub.set_defaults(run=command.run)
    return parser
