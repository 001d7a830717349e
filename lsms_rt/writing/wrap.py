"""Break text into lines that fit a picture."""

from __future__ import annotations

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
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or font.getlength(line[:n]) <= width)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line else lines
