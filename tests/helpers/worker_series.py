"""Small series for the worker's tests, and what an archive should hold of their results."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from lsms_rt.datasets.ct_file import CtNames, write_ct

MATRIX, THICKNESS_MM = 128, 5.0
# A rule that all of them match, and which of them none does.
DESCRIPTION, OTHER = "Abdomen liver 5.0", "Head 5.0"
SENTENCES = ("the lesion in the left lobe of the liver", "the cyst in the right lobe of the liver")


def uids(name: str) -> tuple[str, str]:
    """Return StudyInstanceUID and SeriesInstanceUID of a series."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=[f"worker-study-{name}"]), generate_uid(entropy_srcs=[f"worker-series-{name}"])


def write_series(folder: Path, name: str, slices: int = 3, first: int = 0, **header: Any) -> list[Path]:
    """Write slices ``first`` to ``first + slices - 1`` of a series; ``header`` overrides attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    case, paths = _case(), []
    for number in range(first, first + slices):
        item = case.slices[number % len(case.slices)]
        names = CtNames(
            f"worker-study-{name}", f"worker-series-{name}", f"worker-frame-{name}", f"worker-{name}-{number}"
        )
        half = -0.5 * (MATRIX - 1) * case.spacing_mm
        values = {
            "Manufacturer": "Phantom",
            "PatientName": "Doe^Jane",
            "PatientID": f"worker-{name}",
            "StudyDate": f"{date.today():%Y%m%d}",
            "SeriesDescription": DESCRIPTION,
            "BodyPartExamined": "ABDOMEN",
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [f"{half:.4f}", f"{half:.4f}", f"{-THICKNESS_MM * number:.4f}"],
            "PixelSpacing": [f"{case.spacing_mm:.5f}"] * 2,
            "SliceThickness": f"{THICKNESS_MM:.3f}",
        }
        paths.append(folder / f"{name}-{number}.dcm")
        write_ct(paths[-1], item.hu, names, values | header)
    return paths


def damage(path: Path) -> None:
    """Take away half of a file's pixels; archives store it nevertheless, no reader reads it."""
    from pydicom import dcmread

    ds = dcmread(path)
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
    ds.save_as(path, enforce_file_format=True)


def rules_text(port: int, *, orthanc: bool = True, state: str = "state", **more: object) -> str:
    """Return a rules file for an archive on this machine."""
    lines = [f"archive: {{dicomweb: 'http://127.0.0.1:{port}/dicom-web'"]
    lines[0] += f", orthanc: 'http://127.0.0.1:{port}'}}" if orthanc else "}"
    settings = {"engine": "demo", "state": state, "start": "all", "poll_s": 0.3, "quiet_s": 1.5} | more
    lines += [f"{key}: {value}" for key, value in settings.items()]
    lines += ["rules:", "  - series_description: liver", "    sentences:", *(f"      - {text}" for text in SENTENCES)]
    return "\n".join(lines) + "\n"


@cache
def _case() -> Any:
    from lsms_rt.datasets.phantom.case import generate_case

    return generate_case(7009, 5, MATRIX)
