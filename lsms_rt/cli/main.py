"""Entry point of ``lsms-rt COMMAND``: dispatch, logging, error messages and exit codes.

Exit codes: 0 success, 1 unexpected error, 2 bad usage or input, 3 this machine cannot do it (something is missing, or
the disk is full), 4 engine missing or rejected, 5 partial success: some files could not be read, computed or written,
130 interrupted.
"""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

from lsms_rt.atomic import MACHINE_FAILURES
from lsms_rt.errors import DatasetError, LsmsError, one_line, raised_from
from lsms_rt.privacy import label, show_names
from lsms_rt.runs.about import prefixed

from . import (
    archive,
    bench,
    build,
    calibrate,
    convert,
    demo,
    doctor,
    evaluate,
    export_triton,
    inspect_engine,
    merge,
    phantom,
    serve,
    train,
    words,
    worker,
)
from .exit_codes import ExitCode
from .parser import Command, make_parser
from .predict import command as predict
from .terminal import UntilClosed, status

COMMANDS: tuple[Command, ...] = (
    build.COMMAND,
    calibrate.COMMAND,
    predict.COMMAND,
    merge.COMMAND,
    archive.COMMAND,
    serve.COMMAND,
    export_triton.COMMAND,
    worker.COMMAND,
    inspect_engine.COMMAND,
    words.COMMAND,
    doctor.COMMAND,
    demo.COMMAND,
    phantom.COMMAND,
    convert.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
    *bench.COMMANDS,
)
# Problems of a data set that are printed.
MAX_PROBLEMS = 50
# Missing module -> what to install.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "onnx", "onnxscript", "safetensors", "matplotlib"), "lsms-rt[build]"),
    **dict.fromkeys(("scipy", "tqdm"), "lsms-rt[phantom]"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments; None for those of this process.

    Returns:
        The exit code.

    Raises:
        SystemExit: the arguments are wrong (code 2), or ask for help or the version.
    """
    given = sys.argv[1:] if argv is None else argv
    arguments = make_parser(COMMANDS).parse_args(bench.join_subcommand(given))
    # A file name may not fit the terminal's encoding.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Commands that read patients' files have the option, and hide names without it.
    names = getattr(arguments, "names", True)
    show_names(names)
    with _pipes_may_close(), _terminated_like_interrupted(), _logging_to_stderr(arguments.log_level):
        try:
            code = arguments.run(arguments) or ExitCode.DONE
            sys.stdout.flush()
        except Exception as error:
            if arguments.debug:
                _print_traceback(error, names)
            return _explain(error, names)
        except KeyboardInterrupt:
            status("error: interrupted")
            return ExitCode.INTERRUPTED
        finally:
            show_names(False)
    return int(code)


class _Deduplicate(logging.Filter):
    """Names the input of a message, and drops repeated ones: a series logs the same one for every slice."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = prefixed(record.getMessage())
        record.msg, record.args = text, None
        new = text not in self.seen
        self.seen.add(text)
        return new


class _OneLine(logging.Formatter):
    """Messages of libraries may hold line breaks, and sequences that a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


@contextmanager
def _pipes_may_close() -> Iterator[None]:
    """Keep the exit code, and finish the work, where the program that reads our output ends."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, UntilClosed(stream)) for stream in before)
    try:
        yield
    finally:
        # At the end of the process it would be an error.
        with suppress(OSError):
            sys.stdout.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """End by SIGTERM, which containers and services send, as by Ctrl-C: files are closed, and the exit code says it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _logging_to_stderr(level: str) -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("warning: %(message)s"))
    handler.addFilter(_Deduplicate())
    logger = logging.getLogger("lsms_rt")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def _print_traceback(error: BaseException, names: bool) -> None:
    """Print a traceback; without ``names`` only locations and types, since messages of libraries hold values."""
    if names:
        traceback.print_exception(error)
        return
    cause: BaseException | None = error
    seen: set[int] = set()
    # Causes may form a circle.
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        status(f"{type(cause).__name__}, at")
        for frame in traceback.extract_tb(cause.__traceback__):
            status(f"  {'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.name}")
        cause = raised_from(cause)


def _explain(error: Exception, names: bool) -> int:
    """Print an error in one line; return the exit code."""
    if isinstance(error, LsmsError):
        status(f"error: {error}")
        if isinstance(error, DatasetError) and len(error.problems) > 1:
            for problem in error.problems[:MAX_PROBLEMS]:
                status(f"  {problem}")
            if len(error.problems) > MAX_PROBLEMS:
                status(f"  ... and {len(error.problems) - MAX_PROBLEMS} more")
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        install = EXTRAS.get(package, package)
        clone = f", in a clone: pip install '{install.replace('lsms-rt', '.')}'" if package in EXTRAS else ""
        status(f"error: this command needs {package}; pip install '{install}'{clone}")
        return ExitCode.MACHINE
    if isinstance(error, OSError):
        name = label(error.filename, "a file") if error.filename else "a file"
        status(f"error: {name}: {error.strerror or type(error).__name__}")
        return ExitCode.MACHINE if error.errno in MACHINE_FAILURES else ExitCode.BAD_INPUT
    what = f": {one_line(error)}" if names else ""
    status(f"error: unexpected {type(error).__name__}{what} (--debug shows where, --names shows the message)")
    return ExitCode.FAILED
