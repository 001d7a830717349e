"""Which faults pass, and how long to wait for that."""

from __future__ import annotations

import random

from lsms_rt.errors import LsmsError

# seconds before the second attempt, and at most between two; each is multiplied by 0.5 to 1.5
FIRST_S, LONGEST_S = 2.0, 900.0
# for what is waited for without an end: it is noticed soon when it is there again
LONGEST_WAIT_S = 60.0
# No series waits longer, also not for `quiet_s`.
LONGEST_DUE_S = 3600.0
# Attempts of a series that fail by something unexpected, and workers that ended while they did it.
MAX_UNEXPECTED, MAX_ENDED = 3, 6


class ArchiveError(LsmsError):
    """The archive did not do what was asked; texts of its answers are not repeated, they hold identifiers."""

    exit_code = 3


class ArchiveAwayError(ArchiveError):
    """It cannot be reached: nobody's fault but its own, so it is waited for, however long that takes."""


class ArchiveFailedError(ArchiveError):
    """It failed (5xx, a time-out, an answer that breaks off): to be tried again, but not for ever."""


class ArchiveRefusedError(ArchiveError):
    """It refused (4xx): never tried again."""

    exit_code = 2


class ArchiveDeniedError(ArchiveRefusedError):
    """It refused this worker, not this request (401, 403): the worker ends."""


def delay(attempt: int, longest: float = LONGEST_S) -> float:
    """Return the seconds to wait after failed attempt number ``attempt``, from 1: doubled each time, with jitter."""
    wait = min(longest, FIRST_S * 2.0 ** min(attempt - 1, 30))
    # Workers that failed together must not come back together.
    return wait * random.uniform(0.5, 1.5)
