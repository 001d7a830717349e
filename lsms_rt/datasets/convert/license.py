"""The license and the citation of a source, as its folder states them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Kilobytes of a license are enough; a larger file is something else.
MAX_BYTES = 200_000
NOT_STATED = "not stated in the source's folder"


def license_file(folder: Path) -> str:
    """Return the text of a LICENSE file directly in ``folder``, or ""."""
    return _text_of(folder, ("license", "licence", "copying"))


def citation_file(folder: Path) -> str:
    """Return the text of a CITATION file directly in ``folder``, or ""."""
    return _text_of(folder, ("citation",))


def stated(facts: Mapping[str, Any], *names: str) -> str:
    """Return the first of some entries of a dataset.json that is a text and not empty, or ""."""
    for name in names:
        value = facts.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def source_text(kind: str, license: str, citation: str) -> str:
    """Return the content of LICENSE-SOURCE.txt."""
    return (
        f"The images and masks of this data set, and sentences where the source has them, come from a source of the "
        f"kind\n{kind!r}. They were selected and rewritten by `lsms-rt convert`. The source's terms apply to them.\n\n"
        f"License of the source\n---------------------\n{license or NOT_STATED}\n\n"
        f"Citation of the source\n----------------------\n{citation or NOT_STATED}\n"
    )


def _text_of(folder: Path, stems: tuple[str, ...]) -> str:
    for path in sorted(folder.iterdir()):
        fits = path.stem.lower() in stems and path.suffix.lower() in ("", ".txt", ".md", ".cff", ".bib")
        if fits and path.is_file() and path.stat().st_size <= MAX_BYTES:
            return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
