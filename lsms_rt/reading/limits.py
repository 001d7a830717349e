"""Limits of what is read, for all formats: a small file can claim, or inflate to, any size.

Sums over all files of an input are in ``budget``.
"""

from __future__ import annotations

from collections.abc import Sequence

from lsms_rt.errors import InputError

# of one file, one member of an archive, and the content of a deflated file
MAX_FILE_BYTES = 512 * 2**20
# of a folder, members of an archive, records of a DICOMDIR
MAX_FILES = 20_000
# of a volume or series; 4 GiB as float32
MAX_VOXELS = 2**30
# of a volume or series, and frames of one file: an object is made of each, and a compressed one may have a single byte
MAX_SLICES = 4096
# rad between the slice normal and the body axis: gantries tilt by up to 30 degrees
MAX_TILT = 0.53
# rad of rotation within the slice
MAX_TURN = 0.3
# mm from the origin of the frame of reference, which lies in the scanner or in the patient
MAX_POSITION = 1e5
# mm between pixels: from specimens to attenuation CT; and how often the longer one may hold the shorter
MIN_SPACING, MAX_SPACING, MAX_SPACING_RATIO = 0.01, 20.0, 10.0
# CT images shrink to a half or a third, zip bombs to a thousandth: a file may inflate to 64 times its size, or 64 MiB
MAX_INFLATION = 64
FREE_INFLATION = 64 * 2**20
# of all pixels of an input: a slice of nothing but air shrinks to a thousandth, a series does not
PIXELS_PER_BYTE = 32
FREE_PIXELS = 2**26


def inflation_limit(packed: int) -> int:
    """Return how many bytes ``packed`` compressed bytes may inflate to: above CT ratios, below zip-bomb ratios."""
    return min(MAX_FILE_BYTES, max(FREE_INFLATION, MAX_INFLATION * packed))


def pixel_limit(packed: int) -> int:
    """Return how many pixels, of 4 bytes in memory, an input of ``packed`` bytes may have in all."""
    return min(MAX_VOXELS, max(FREE_PIXELS, PIXELS_PER_BYTE * packed))


def check_size(size: int, source: str) -> None:
    """Raise InputError for an empty file, or one of more than ``MAX_FILE_BYTES``."""
    if size == 0:
        raise InputError(f"{source}: the file is empty; export it again from its source")
    if size > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES / 2**20:.0f} MiB"
        raise InputError(f"{source}: {size / 2**20:.0f} MiB is over the limit of {limit}; give a smaller file")


def check_spacing(spacing: Sequence[float], name: str, source: str, fix: str) -> None:
    """Raise InputError for distances of pixels, in mm, that no CT image has; ``name`` is what the file calls them."""
    low, high = min(spacing), max(spacing)
    if not (low >= MIN_SPACING and high <= MAX_SPACING and high <= MAX_SPACING_RATIO * low):
        limits = f"{MIN_SPACING:g} to {MAX_SPACING:g} mm with a ratio up to {MAX_SPACING_RATIO:g} are supported"
        raise InputError(f"{source}: {name} is {spacing[0]:g} x {spacing[1]:g} mm; {limits}; {fix}")


def check_count(count: int, name: str, noun: str) -> None:
    """Raise InputError for more than ``MAX_FILES`` files, members or records."""
    if count > MAX_FILES:
        raise InputError(f"{name}: {count} {noun}, over the limit of {MAX_FILES}; give one series only")
