"""Run the units of ``make gpu-check`` within a budget, and keep every row."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .plan import SECTIONS, Unit
from .process import NOT_RUN, RIGHT, Outcome, Process, Row, outcome, started
from .row_file import RowFile

# Kind of the rows that say how a unit ended.
OUTCOME = "outcome"
# Seconds at the end of the budget for the summary.
RESERVE = 5.0
# Seconds that the environment may take from other sections' shares: without it they are worth nothing.
ENVIRONMENT = 60.0


@dataclass
class Run:
    """One run: its budget, where its rows go, and what came of its units.

    Attributes:
        budget: seconds from ``begin`` to the end of the run.
        file: gets every row and every outcome.
        jobs: processes at a time, for units that are not timed.
        say: called with what the units print.
        finished: called with the outcomes after every section.
        rows: every row so far with its section and unit, and a row for the outcome of every unit.
    """

    budget: float
    file: RowFile
    jobs: int = 1
    say: Callable[[str], None] = lambda _: None
    finished: Callable[[Run], None] = lambda _: None
    begin: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row, here and in the file."""
        self.rows.append(row)
        self.file.add(row)

    def units(self, units: Sequence[Unit]) -> None:
        """Run units section by section; what does not fit into its section's time is not run.

        A section ends at the sum of the shares up to its own, so time that one does not need goes to the next.  If the
        environment is not right, nothing else runs.
        """
        with tempfile.TemporaryDirectory(prefix="lsms-rt-gpu-check-", ignore_cleanup_errors=True) as cache:
            units = [self._with_cache(unit, Path(cache)) for unit in units]
            ends = self._ends(units)
            broken: str | None = None
            for section, group in itertools.groupby(units, lambda unit: unit.section):
                for parallel, some in itertools.groupby(group, lambda unit: unit.parallel):
                    if broken is not None:
                        for unit in some:
                            self._end(outcome(unit, NOT_RUN, broken))
                    elif parallel:
                        self._together(list(some), ends[section])
                    else:
                        self._one_by_one(list(some), ends[section])
                if section == "environment" and self.rows[-1]["state"] != RIGHT:
                    broken = f"environment: {self.rows[-1]['reason']}"
                self.finished(self)

    def _with_cache(self, unit: Unit, folder: Path) -> Unit:
        """Give the compilers a cache of this run, unless the user named one for the first assembler."""
        folder /= unit.cache
        caches = {"TRITON_CACHE_DIR": folder / "triton", "TORCHINDUCTOR_CACHE_DIR": folder / "inductor"}
        ours = {name: str(path) for name, path in caches.items() if unit.cache != "own" or name not in os.environ}
        return replace(unit, variables={**ours, **unit.variables})

    def _ends(self, units: Sequence[Unit]) -> dict[str, float]:
        """Return the moment at which each section must end; only sections that run have a share."""
        shares = {section: SECTIONS[section][0] for section in dict.fromkeys(unit.section for unit in units)}
        seconds = max(0.0, self.budget - RESERVE)
        sums = itertools.accumulate(shares.values())
        whole = sum(shares.values())
        ends = {section: self.begin + seconds * part / whole for section, part in zip(shares, sums, strict=True)}
        # A broken compiler or driver is a result; it must not look like a lack of time.
        if "environment" in ends:
            ends["environment"] = self.begin + min(seconds, ENVIRONMENT)
        return ends

    def _together(self, units: Sequence[Unit], end: float) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(lambda unit: self._end(self._run(unit, None, end)), units))

    def _one_by_one(self, units: Sequence[Unit], end: float) -> None:
        """Run units alone; the processes of the next ones import PyTorch meanwhile."""
        with closing(started(units, lambda unit: self._reason(unit, end) is None)) as processes:
            for unit, process in processes:
                self._end(self._run(unit, process, end))

    def _run(self, unit: Unit, process: Process | None, end: float) -> Outcome:
        reason = self._reason(unit, end)
        if reason is not None:
            if process is not None:
                process.stop()
            return outcome(unit, NOT_RUN, reason)

        def keep(row: Row) -> None:
            self.add({"section": unit.section, "unit": unit.name} | row)

        seconds = min(unit.limit, end - time.monotonic())
        return (process or Process(unit)).follow(seconds, keep, self.say)

    def _reason(self, unit: Unit, end: float) -> str | None:
        """Return why a unit cannot run now."""
        if unit.absent is not None:
            return unit.absent
        left = end - time.monotonic()
        return f"budget: {max(0.0, left):.0f} s are left to the section" if left < unit.least else None

    def _end(self, ended: Outcome) -> None:
        self.add({"kind": OUTCOME} | asdict(ended))
