"""The parent's side of a unit: start its process, follow it, stop it in time, and judge how it ended.

Nothing here imports PyTorch or touches the GPU, so no failure of a kernel reaches the process that writes the results.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .plan import Unit

RIGHT, WRONG, NOT_RUN = "right", "wrong", "not run"
# Characters of what a unit printed that are kept as its trace.
TRACE = 6000
# Seconds between two looks at whether the process has ended.
LOOK = 0.1
# Processes that import PyTorch while a unit is timed, and the cores that each takes from it.
AHEAD, CORES = 4, 4
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a unit ended.

    Attributes:
        section: the unit's section.
        unit: the unit's name.
        state: "right", "wrong" or "not run".
        reason: in one line why it is not right; "" if it is.
        trace: the traceback, or the last that the process printed; "" if it is right.
        seconds: from its start to its end.
        rows: number of rows that arrived.
        kernel: the kernel that the unit is about, if it is about one.
        dtype: its element type.
        ptxas: the assembler, if it is not Triton's own.
    """

    section: str
    unit: str
    state: str
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0
    rows: int = 0
    kernel: str | None = None
    dtype: str = "fp16"
    ptxas: str | None = None


def outcome(unit: Unit, state: str, reason: str, **fields: Any) -> Outcome:
    """Return the outcome of a unit."""
    return Outcome(
        section=unit.section, unit=unit.name, state=state, reason=reason, kernel=unit.arguments.get("kernel"),
        dtype=unit.arguments.get("dtype", "fp16"), ptxas=unit.mark.get("ptxas"), **fields,
    )  # fmt: skip


class Process:
    """The process of one unit.  It imports its module at once, and starts to work when :meth:`follow` is called."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self._messages: list[Row] = []
        self._printed = ""
        module, _, self._function = unit.function.partition(":")
        command = [*unit.prefix, sys.executable, "-m", "lsms_rt.bench.gpu.worker", module]
        # A session of its own, so that compilers that it starts are stopped with it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env=os.environ | dict(unit.variables),
        )  # fmt: skip

    def stop(self) -> None:
        """End the process and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            # What was not sent cannot be sent to a process that has ended.
            with suppress(BrokenPipeError):
                pipe.close()

    def follow(self, seconds: float, keep: Callable[[Row], None], say: Callable[[str], object]) -> Outcome:
        """Let the unit work for at most ``seconds``.

        Args:
            seconds: the time that is left to the unit; less than its limit if the budget ends earlier.
            keep: called with every row as soon as it arrives.
            say: called with what the process prints.

        Returns:
            How it ended.
        """
        begin, rows, wrong = time.monotonic(), 0, 0
        try:
            self._order(seconds)
            for message in self._arriving(begin + seconds, say):
                if "row" in message:
                    row = message["row"] | dict(self.unit.mark)
                    keep(row)
                    rows, wrong = rows + 1, wrong + (row.get("ok") is False)
                else:
                    self._messages.append(message)
        finally:
            late = self._process.poll() is None
            self.stop()
        state, reason, trace = self._judged(late, seconds, rows, wrong)
        took = round(time.monotonic() - begin, 2)
        return outcome(self.unit, state, reason, trace=trace, seconds=took, rows=rows)

    def _order(self, seconds: float) -> None:
        order = {"function": self._function, "arguments": dict(self.unit.arguments), "seconds": seconds}
        assert self._process.stdin is not None
        # A process that has ended already is judged by its exit code.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _arriving(self, end: float, say: Callable[[str], object]) -> Any:
        """Yield messages until the process has ended or its time is over."""
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        pending = b""
        with selectors.DefaultSelector() as selector:
            for pipe in (out, err):
                selector.register(pipe, selectors.EVENT_READ)
            while time.monotonic() < end:
                # Asked before reading: what it wrote before its end is still read.
                ended = self._process.poll() is not None
                if not ended and not selector.get_map():
                    # It closed its pipes, so it is about to end.
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(min(LOOK, max(0.0, end - time.monotonic())))
                    continue
                ready = selector.select(0 if ended else min(LOOK, max(0.0, end - time.monotonic())))
                if ended and not ready:
                    return
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is err:
                        self._print(data.decode(errors="replace"), say)
                    else:
                        *lines, pending = (pending + data).split(b"\n")
                        for line in lines:
                            message = _message(line)
                            if message is None:
                                self._print(line.decode(errors="replace") + "\n", say)
                            else:
                                yield message

    def _print(self, text: str, say: Callable[[str], object]) -> None:
        self._printed = (self._printed + text)[-TRACE:]
        say(text)

    def _judged(self, late: bool, seconds: float, rows: int, wrong: int) -> tuple[str, str, str]:
        """Return state, reason and trace."""
        said = {name: text for message in self._messages for name, text in message.items()}
        if late and seconds < self.unit.limit:
            return NOT_RUN, f"budget: cut off after {seconds:.0f} s", self._printed
        if late:
            return WRONG, f"ran past its limit of {seconds:.0f} s", self._printed
        if self.unit.unsupported and self.unit.unsupported in self._printed:
            return NOT_RUN, f"{self.unit.prefix[0]}: {self.unit.unsupported}", self._printed
        if "not_run" in said:
            return NOT_RUN, said["not_run"], ""
        if "trace" in said:
            return WRONG, said["trace"].strip().splitlines()[-1], said["trace"][-TRACE:]
        code = self._process.returncode
        if code < 0:
            return WRONG, f"died by {signal.Signals(-code).name}", self._printed
        if code or "end" not in said:
            return WRONG, f"ended with exit code {code} before it was done", self._printed
        if wrong:
            return WRONG, f"{wrong} of {rows} rows are wrong", self._printed
        return RIGHT, "", ""


def started(
    units: Sequence[Unit], wanted: Callable[[Unit], bool] = lambda _: True
) -> Generator[tuple[Unit, Process | None], None, None]:
    """Yield every unit with its process; the processes of the next units import their modules meanwhile.

    A unit that is not ``wanted`` when its turn to start comes has none.  Close the iterator to end those that wait.
    """
    ahead = min(AHEAD, (os.cpu_count() or 1) // CORES)
    waiting: deque[Process | None] = deque()
    following = iter(units)
    try:
        for unit in units:
            for other in itertools.islice(following, ahead + 1 - len(waiting)):
                waiting.append(Process(other) if wanted(other) else None)
            yield unit, waiting.popleft()
    finally:
        for process in waiting:
            if process is not None:
                process.stop()


def _message(line: bytes) -> Row | None:
    """Return a message of the worker; None for anything else that was printed."""
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and message.keys() & {"row", "end", "not_run", "trace"}:
            return message
    return None
