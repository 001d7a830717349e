"""Tell a damaged slice from a file of another kind, where the bytes that say "DICOM" are the damaged ones."""

from __future__ import annotations

from collections.abc import Iterable

_PREAMBLE = 128
# of a file without a preamble: tag, type and length of its first element
_ELEMENT = 8


def may_be_broken_dicom(head: bytes, named_dicom: bool, neighbors: Iterable[bytes]) -> bool:
    """Return whether a file that does not look like DICOM may have been a slice.

    Args:
        head: its first bytes.
        named_dicom: whether its name ends like that of a DICOM file.
        neighbors: the beginnings of the DICOM files beside it, as :func:`beginning_of` returns them.
    """
    if named_dicom or (len(head) >= _PREAMBLE and not head[:_PREAMBLE].strip(b"\0")):
        return True
    return any(
        head[:_PREAMBLE] == known if len(known) == _PREAMBLE else _nearly_equal(head[:_ELEMENT], known)
        for known in neighbors
    )


def beginning_of(head: bytes) -> bytes:
    """Return what files of a series have in common at their beginning: the preamble, or the first element's header."""
    return head[:_PREAMBLE] if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else head[:_ELEMENT]


def _nearly_equal(a: bytes, b: bytes) -> bool:
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) <= 1
