"""Write the slices and rows of one scan in the RefHL-Seg layout.

Images are DICOM files, one per slice, in the usual axial view: they keep HU, pixel spacing, position and orientation,
and need no package that the runtime does not have (.npy files have no spacing, NIfTI needs nibabel).  They hold
nothing of the source's headers, so no name and no date.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.datasets.ct_file import CtNames, write_ct
from lsms_rt.datasets.refhl import FIELDS

from .choose import height_of
from .given import Row
from .lesions import spacing_of
from .source import Volume

COLUMNS = (*FIELDS, "query")


def write_image(folder: Path, kind: str, case_id: str, volume: Volume, n: int) -> str:
    """Write slice ``n`` as DICOM, HU rounded to whole numbers; return its path inside ``folder``."""
    ct = volume.slices[n]
    (dy, dx), (height, width) = spacing_of(ct), ct.hu.shape
    name = f"images/{case_id}/{n:04d}.dcm"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    names = CtNames(*(f"lsms-rt-convert-{kind}-{case_id}-{what}" for what in ("study", "series", "frame", f"{n}")))
    header = {
        "PatientName": "",
        "PatientID": case_id,
        "SeriesDescription": f"converted from {kind}",
        "InstanceNumber": n + 1,
        "ImagePositionPatient": [_number(-0.5 * (width - 1) * dx), _number(-0.5 * (height - 1) * dy),
                                 _number(height_of(volume, n))],
        "PixelSpacing": [_number(dy), _number(dx)],
        "SliceThickness": _number(_step(volume)),
    }  # fmt: skip
    write_ct(folder / name, np.rint(ct.hu).astype(np.int16), names, header)
    return name


def write_rows(folder: Path, case_id: str, split: str, n: int, image: str, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Write the masks of slice ``n``, equal ones once, and return the lines of the table."""
    from PIL import Image

    (folder / "masks" / case_id).mkdir(parents=True, exist_ok=True)
    written: dict[bytes, str] = {}
    lines = []
    for row in rows:
        key = row.mask.tobytes()
        if key not in written:
            written[key] = f"masks/{case_id}/{n:04d}_{len(written) + 1 if row.mask.any() else 'none'}.png"
            Image.fromarray(np.where(row.mask, 255, 0).astype(np.uint8)).save(folder / written[key])
        values = (case_id, f"{n:04d}", image, written[key], row.sentence, row.lesion_type, split, row.query)
        lines.append(dict(zip(COLUMNS, values, strict=True)))
    return lines


def write_table(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write annotations.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def _step(volume: Volume) -> float:
    """Return the distance between slices in mm."""
    heights = [height_of(volume, n) for n in range(len(volume.slices))]
    return float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0


def _number(value: float) -> str:
    """Return a number as DICOM's decimal string, which has at most 16 characters."""
    return f"{value:.9g}"
