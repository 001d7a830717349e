"""Exit codes of the command line."""

from __future__ import annotations

from enum import IntEnum

from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError


class ExitCode(IntEnum):
    """Exit codes; the first five are the ``exit_code`` of an error class, or success."""

    DONE = 0
    # An unexpected error, or a slower figure for `bench compare --fail-on-slower`.
    FAILED = LsmsError.exit_code
    BAD_INPUT = InputError.exit_code
    MACHINE = MachineError.exit_code
    ENGINE = EngineError.exit_code
    # Some files could not be read or written; the rest is done.
    PARTIAL = 5
    # As shells report SIGINT.
    INTERRUPTED = 130
