"""Break text into lines that fit a picture."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """Break a text between words, or within one that is wider than a line.

    Args:
        text: the text; any white space is one space.
        font: of Pillow.
        width: of a line, in pixels.
    """
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while font.getlength(line) > width and len(line) > 1:
            fits = _fitting(line, font, width)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line else lines


def _fitting(line: str, font: Any, width: int) -> int:
    """Return how many characters of a line that is too wide fit, at least one."""
    return max(1, bisect_right(range(1, len(line)), width, key=lambda n: font.getlength(line[:n])))
