"""What every field of a manifest may hold.  It comes from whoever made the engine, so nothing is taken as it is.

Names and choices are closed vocabularies, since messages and commands repeat them; texts are one printable line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lsms_rt.body import CROPS

from .tensorrt.variant import HARDWARE

# Of the network's input; every slice is turned to it.
ORIENTATION = "rows: anterior to posterior; columns: patient's right to left"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Precision of the layers of an INT8 engine that stay in floating point.
REST_PRECISIONS = ("fp16", "fp32", "bf16")
# Sizes, at most.
LARGEST = 8192
# Slices per call of an engine, at most, and values of all of their inputs: 1 GiB, 1024 slices of 512x512 pixels.
MAX_BATCH, MAX_INPUT_VALUES = 1024, 1 << 28
# Characters of a text, and of one inside of a record, which may quote an error.
MAX_TEXT, MAX_RECORDED_TEXT = 200, 1000
# Values in one record, and how deep they are nested.
MAX_VALUES, MAX_DEPTH = 2000, 6


@dataclass(frozen=True)
class Rule:
    """What a value may be: ``allows`` tells, ``words`` say it in a message."""

    words: str
    allows: Callable[[Any], bool]

    def optional(self) -> Rule:
        """Return the rule that also allows None."""
        return Rule(f"{self.words} or null", lambda value: value is None or self.allows(value))


def shown(value: object) -> str:
    """Describe a value in a message: numbers and plain words as they are, of anything else only what it is."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a very large number"
    if isinstance(value, str):
        return repr(value) if re.fullmatch(r"[A-Za-z0-9_.+-]{1,40}", value) else f"a text of {len(value)} characters"
    if isinstance(value, (list, tuple)):
        few = len(value) <= 4 and all(type(item) in (int, float) for item in value)
        return f"({', '.join(map(shown, value))})" if few else f"a list of {len(value)} values"
    return f"a record of {len(value)} values" if isinstance(value, dict) else f"a {type(value).__name__}"


def _one_of(choices: Sequence[str]) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def _like(pattern: str, words: str) -> Rule:
    return Rule(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None)


def _whole(low: int, high: int) -> Rule:
    return Rule(f"an integer from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _is_number(value: object) -> bool:
    return (type(value) is int and abs(value) < 10**20) or (type(value) is float and math.isfinite(value))


def _is_text(value: object, limit: int) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= limit


def _is_window(value: Any) -> bool:
    if not (isinstance(value, tuple) and len(value) == 2):
        return False
    return all(_is_number(end) and abs(end) < 1e6 for end in value) and value[0] < value[1]


def _is_profile(value: Any) -> bool:
    if not (isinstance(value, tuple) and len(value) == 3):
        return False
    return all(type(batch) is int for batch in value) and 1 <= value[0] <= value[1] <= value[2] <= MAX_BATCH


def _is_files(value: Any) -> bool:
    if not (isinstance(value, dict) and len(value) <= 32):
        return False
    return all(re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name, re.ASCII) for name in value) and all(
        map(_DIGEST.allows, value.values())
    )


def _is_plain(value: Any) -> bool:
    """Whether a value is a record's: numbers, lines of text, lists and records of them, not too many or too deep."""
    left, todo = MAX_VALUES, [(value, 0)]
    while todo:
        item, depth = todo.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            return False
        if isinstance(item, dict):
            if not all(re.fullmatch(r"\w[\w. -]{0,63}", key, re.ASCII) for key in item):
                return False
            todo += [(nested, depth + 1) for nested in item.values()]
        elif isinstance(item, (list, tuple)):
            todo += [(nested, depth + 1) for nested in item]
        elif not (item is None or isinstance(item, bool) or _is_number(item) or _is_text(item, MAX_RECORDED_TEXT)):
            return False
    return True


def _record(**known: Rule) -> Rule:
    """Return the rule for a record: plain values, those of ``known`` names by their own rules where they are there."""

    def allows(value: Any) -> bool:
        if not (isinstance(value, dict) and _is_plain(value)):
            return False
        return all(rule.allows(value[name]) for name, rule in known.items() if name in value)

    return Rule("a record of plain values", allows)


_TEXT = Rule(f"a text of one line and at most {MAX_TEXT} characters", lambda value: _is_text(value, MAX_TEXT))
_LINE = Rule(f"one line of at most {MAX_RECORDED_TEXT} characters", lambda value: _is_text(value, MAX_RECORDED_TEXT))
_DIGEST = _like("[0-9a-f]{64}", "a SHA-256 in hexadecimal")
_VERSION = _like(r"\d[\w.+-]{0,63}", "a version")
_FLAG = Rule("true or false", lambda value: isinstance(value, bool))
_LINES = Rule("a list of lines", lambda value: isinstance(value, list) and all(map(_LINE.allows, value)))
_NUMBER = Rule("a number", _is_number)
_SHARE = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_PROBABILITY = Rule("between 0 and 1", lambda value: _is_number(value) and 0 < value < 1)
_COUNT = _whole(0, 10**9)
_COUNTS = Rule("a record of counts", lambda value: isinstance(value, dict) and all(map(_COUNT.allows, value.values())))
_FIGURES = Rule("a record of plain values", lambda value: value is None or isinstance(value, dict))

# Field of ``Manifest`` -> its rule.
FIELDS = {
    "preset": _TEXT,
    "weights_digest": _DIGEST,
    "weights_note": _TEXT,
    "backend": _like("[a-z][a-z0-9-]{0,39}", "the name of a backend"),
    "backend_version": _VERSION,
    "precision": _one_of(PRECISIONS),
    "image_size": Rule(
        f"a multiple of 32, up to {LARGEST}",
        lambda value: type(value) is int and 32 <= value <= LARGEST and value % 32 == 0,
    ),
    "channels": _whole(1, LARGEST),
    "hu_window": Rule("(lower, upper) in HU", _is_window),
    "orientation": Rule(f'"{ORIENTATION}"', lambda value: value == ORIENTATION),
    "max_tokens": _whole(3, LARGEST),
    "max_batch": _whole(1, MAX_BATCH),
    "profile": Rule("three batch sizes, in order", _is_profile),
    "threshold": _PROBABILITY,
    "confidence": _PROBABILITY,
    "kernels": _one_of(("stock", "triton")),
    "compute_capability": _like(r"\d{1,3}\.\d", "a compute capability").optional(),
    # As a driver says it, without the characters that a shell acts on.
    "device_name": _like(r"[\w™®][\w™® .,:+/()@-]{0,99}", "the name of a GPU").optional(),
    "target_capabilities": Rule(
        "a list of architectures",
        lambda value: (
            isinstance(value, tuple)
            and len(value) <= 32
            and all(isinstance(name, str) and re.fullmatch(r"sm_\d{2,3}[af]?", name) for name in value)
        ),
    ),
    "calibration": _record(
        method=_LINE,
        recipe_digest=_DIGEST,
        slices_digest=_DIGEST,
        int8_layers=_COUNTS,
        floating_point_layers=_COUNTS,
        macs_share=_SHARE,
        rest=_one_of(REST_PRECISIONS),
        candidate_sets=_COUNT.optional(),
    ).optional(),
    "gate": _record(
        passed=_FLAG,
        skipped=_FLAG,
        accepted=_FLAG,
        failures=_LINES,
        unchecked=_LINES,
        unjudged=_LINE.optional(),
        of=_LINE,
        data=_LINE,
        measured_with=_LINE,
        reference=_LINE,
        data_digest=_DIGEST,
        report_sha256=_DIGEST,
        max_dice_drop=_SHARE,
        cases=_COUNT,
        sentences=_COUNT,
        dice=_FIGURES,
        small=_FIGURES,
        found=_FIGURES,
        small_found=_FIGURES,
        earlier_refusals=_COUNT,
    ),
    "accuracy": _record(
        slices=_COUNT,
        max_logit_difference=_NUMBER,
        mask_agreement=_SHARE,
        mask_dice=_SHARE,
        measured_with=_LINE,
    ),
    "kept_in_fp32": _record(),
    "plan_options": _record(
        hardware=_one_of(tuple(HARDWARE)),
        version_compatible=_FLAG,
        workspace_mib=_whole(1, 2**40).optional(),
        optimization_level=_whole(0, 9).optional(),
        platform=_like(r"[\w.-]{0,40} [\w.-]{0,40}", "an operating system and a processor"),
        plugins=_like(r"sm_\d{2,3}", "an architecture such as sm_90"),
    ),
    "files": Rule("plain names with their digests", _is_files),
    "built_by": _TEXT,
    "crop": _one_of(CROPS),
    "format": _whole(1, 10**6),
}
