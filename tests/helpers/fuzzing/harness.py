"""Runs one case and judges what came of it. Whatever is not a result or a decent LsmsError is a failure.

A failure is never hidden here: what a reader may do is said in `judge`, and everything else counts.
"""

from __future__ import annotations

import logging
import math
import signal
import tempfile
import traceback
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import numpy as np

from fuzzing import engines, mutate, seeds
from fuzzing.case import MARKER, Case, Wrong
from fuzzing.outputs import answer_and_write

# A small file that takes longer hangs.
SECONDS = 20.0
# Characters of a message that is called one line.
LONGEST = 600
# Bytes that reading may add; the inputs are a few kilobytes.
MOST_MEMORY = 1.5 * 2**30
SENTENCE = "the low-density lesion in the left lobe of the liver"
FAILURES = ("crash", "hang", "memory", "message", "wrong")


class Hang(BaseException):
    """Raised by the alarm; no Exception, so that no reader catches it."""


@dataclass(frozen=True)
class Verdict:
    """`outcome` is "ok", "typed" or one of FAILURES; `where` says which line, for counting equal failures once."""

    outcome: str
    detail: str = ""
    where: str = ""
    peak_bytes: int = 0


def make_case(form: str, seed: int, index: int) -> Case:
    """Number `index` of a run; 0 is the seed itself, undamaged. The same arguments, the same bytes."""
    if form == "engine":
        return engines.engine_case(seed, index) if index else seeds.engine_seed()
    rng = Random(f"{form} {seed} {index}")
    others = [seeds.seed(name) for name in rng.sample(seeds.FORMATS, 2)]
    return mutate.mutate(seeds.seed(form), rng, others) if index else seeds.seed(form)


def judge(case: Case, seconds: float = SECONDS) -> Verdict:
    """Open the case from a fresh folder, within the time and memory that are allowed."""
    opener = open_engine if ".engine" in case.entry else read_slices
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        try:
            path = case.write(Path(folder))
        except (OSError, ValueError) as error:
            # This file system cannot hold the name.
            return Verdict("ok", f"not written: {error}")
        before = reset_peak()
        verdict = _judged(lambda messages: opener(path, messages), seconds)
    grown = max(0, peak_bytes() - before)
    if grown > MOST_MEMORY and verdict.outcome in ("ok", "typed"):
        verdict = Verdict("memory", f"{grown / 2**20:.0f} MiB more; {verdict.detail}", verdict.where)
    return Verdict(verdict.outcome, verdict.detail, verdict.where, grown)


def _judged(call: Callable[[list[str]], None], seconds: float) -> Verdict:
    from lsms_rt.errors import LsmsError

    messages: list[str] = []
    try:
        with _alarm(seconds), _logged(messages):
            call(messages)
    except LsmsError as error:
        bad = bad_message(str(error), *messages)
        return Verdict("message" if bad else "typed", f"{bad}{type(error).__name__}: {error}", _where(error))
    except Hang as error:
        return Verdict("hang", "".join(traceback.format_tb(error.__traceback__)[-6:]), _where(error))
    except BaseException as error:
        # SystemExit and a panic of compiled Rust too.
        text = "".join(traceback.format_exception(error))[-6000:]
        return Verdict("wrong" if isinstance(error, Wrong) else "crash", text, _where(error))
    bad = bad_message(*messages)
    return Verdict("message" if bad else "ok", bad)


def bad_message(*messages: str) -> str:
    """What is wrong with an error's or a log's text; empty if nothing."""
    for message in messages:
        if MARKER in message:
            return f"shows a value of the file: {message[:200]!r}; "
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in message):
            return "holds control characters; "
        if len(message) > LONGEST:
            return f"has {len(message)} characters; "
        if not message.strip():
            return "is empty; "
    return ""


def _where(error: BaseException) -> str:
    """Exception class, the last line of ours and the last line at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "lsms_rt" in Path(f.filename).parts]
    lines = [f"{Path(f.filename).name}:{f.lineno}" for f in (*ours[-1:], *frames[-1:])]
    return " ".join([type(error).__name__, *dict.fromkeys(lines)])


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises Hang after some seconds, and again each second in case something catches it."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Keeper(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())


@contextmanager
def _logged(messages: list[str]) -> Iterator[None]:
    """What the package logs is a message, too, and so is a warning of any library that gets as far as here."""
    logger, keeper = logging.getLogger("lsms_rt"), _Keeper(messages)
    logger.addHandler(keeper)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            logger.removeHandler(keeper)
            messages += [str(warning.message) for warning in caught]


def read_slices(path: Path, messages: list[str]) -> None:
    """Every other case is read with damaged files left out, as `--skip-damaged` would."""
    from lsms_rt.reading.left_out import LeftOut
    from lsms_rt.reading.load import load_slices
    from lsms_rt.reading.stated import Stated

    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    skip = zlib.crc32(b"".join(p.read_bytes() for p in files)) % 2 == 0
    left_out = LeftOut(damaged=messages) if skip else None
    slices = load_slices(path, stated=Stated(window=(50.0, 350.0)), left_out=left_out)
    if not slices:
        raise Wrong("an empty list instead of an error")
    for ct in slices:
        check_slice(ct)
    answer_and_write(slices, messages)


def check_slice(ct: Any) -> None:
    """The promises of CtSlice, whatever was in the file."""
    hu = ct.hu
    if hu.ndim != 2 or hu.dtype != np.float32 or not np.isfinite(hu).all():
        raise Wrong(f"HU of shape {hu.shape}, {hu.dtype}, or not finite")
    if hu.min() < -1024 or hu.max() > 3071:
        raise Wrong(f"HU from {hu.min()} to {hu.max()}")
    if ct.spacing_mm is not None and not all(math.isfinite(v) and v > 0 for v in ct.spacing_mm):
        raise Wrong(f"spacing {ct.spacing_mm}")
    if ct.position_mm is not None and not math.isfinite(ct.position_mm):
        raise Wrong(f"position {ct.position_mm}")
    if bad := bad_message(*ct.notes, ct.source):
        raise Wrong(f"a note or the source {bad}")


def open_engine(path: Path, messages: list[str]) -> None:
    """Open it, ask it for one slice, and look at the answer."""
    from lsms_rt.segmenter import Segmenter

    with Segmenter(path, threads=1, device="cpu") as segmenter:
        answer = segmenter.predict(_abdomen(), SENTENCE)
    if answer.mask.shape != (40, 48) or answer.mask.dtype != bool or not math.isfinite(answer.score):
        raise Wrong(f"a mask {answer.mask.shape} {answer.mask.dtype}, score {answer.score}")
    if not np.isfinite(answer.probability).all():
        raise Wrong("probabilities that are not finite")
    answer.to_dict(include_text=True)


def _abdomen() -> np.ndarray:
    hu = np.full((40, 48), -1000.0, np.float32)
    hu[10:30, 10:38] = 60
    return hu


def reset_peak() -> int:
    """Start to count the largest resident size anew, where the system can; returns what is resident now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The largest resident size since the last reset (or ever); 0 where it is unknown."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
