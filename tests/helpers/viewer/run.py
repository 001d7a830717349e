"""Show a phantom's results in OHIF, check that they are seen, and save pictures.

    python tests/helpers/viewer/run.py -o DIR

Writes a phantom series, runs ``lsms-rt predict`` on it, stores images and results in Orthanc, opens each object in OHIF
and checks it.  Ends with status 1 if something is not seen.  DIR/viewer.json has what was seen, and the versions.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The folder tests/helpers, so that it runs as a script, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orthanc import Archive, orthanc
from pydicom import dcmread

from viewer import ohif
from viewer.checks import check_contours, check_key_image, check_masks, check_panel, check_report
from viewer.page import Browser, NotShown, Viewer, browser
from viewer.site import DICOMWEB, site
from viewer.written import busiest_slice, found_sentences, run_manifest

DEBIAN = {"/usr/sbin/Orthanc": "orthanc", "/usr/bin/chromium": "chromium"}
DEBIAN["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"] = "orthanc-dicomweb"
# The third mask is a part of the second one; for the last sentence nothing is found.
SEED, SLICES, MATRIX = 7009, 10, 512
SENTENCES = (
    "the lesion in the left lobe",
    "the lesion in the right lobe",
    "the large lesion in the right lobe",
    "the calcification in the right lobe",
)
HELD_S = 3600


def main() -> int:
    parser = argparse.ArgumentParser(description="check in OHIF what lsms-rt predict writes")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="replaced, but for OHIF itself")
    parser.add_argument("--keep", action="store_true", help="then serve the viewer, until Ctrl+C, for at most an hour")
    arguments = parser.parse_args()
    install()
    work: Path = arguments.output / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    images, results = work / "images", work / "results"
    write_images(images)
    predict(images, results)
    pages = ohif.pages(arguments.output / "npm")
    with orthanc(work / "orthanc") as archive:
        for path in sorted((*images.glob("*.dcm"), *results.glob("*.dcm"))):
            archive.store(path)
        with site(pages, ohif.script(DICOMWEB), archive.port) as address:
            with browser(address) as chromium:
                report = {"versions": versions(archive, chromium), "sentences": list(SENTENCES)}
                report |= see(chromium, images, results, arguments.output)
            (arguments.output / "viewer.json").write_text(json.dumps(report, indent=2) + "\n")
            if arguments.keep:
                print(f"{address} shows the study", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    time.sleep(HELD_S)
    for name, seen in report["seen"].items():
        print(f"{name}: {seen.get('not_shown') or 'shown'}")
    return int(any("not_shown" in seen for seen in report["seen"].values()))


def install() -> None:
    """Install what is missing of Debian's packages; without the right to, say how."""
    missing = [package for path, package in DEBIAN.items() if not Path(path).exists()]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid():
        raise SystemExit(f"missing: {', '.join(missing)}; run: sudo {' '.join(command)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        subprocess.run(step, check=True, stdout=subprocess.DEVNULL, env=quiet)


def write_images(folder: Path) -> None:
    """Write a series of a phantom patient."""
    from lsms_rt.datasets.phantom.case import generate_case
    from lsms_rt.datasets.phantom.dicom import write_slice

    folder.mkdir()
    case = generate_case(SEED, SLICES, MATRIX)
    for index in range(len(case.slices)):
        write_slice(folder / f"{index:03d}.dcm", case, index, "phantom")


def predict(images: Path, results: Path) -> None:
    """Run the command line, as a user does, with all that it writes as DICOM."""
    lsms_rt = Path(sys.executable).with_name("lsms-rt")
    command = [str(lsms_rt), "predict", "demo", str(images), "-o", str(results), "--names"]
    for sentence in SENTENCES:
        command += ["--text", sentence]
    subprocess.run([*command, "--seg", "--sr", "--sc", "--rtstruct"], check=True, stdout=subprocess.DEVNULL)


def versions(archive: Archive, chromium: Browser) -> dict[str, str]:
    """Return the versions of all that took part."""
    packages = ("lsms-rt", "highdicom", "pydicom", "playwright")
    named = {name: importlib.metadata.version(name) for name in packages}
    return {**archive.versions, "OHIF": ohif.VERSION, "Chromium": chromium.version, **named}


def see(chromium: Browser, images: Path, results: Path, pictures: Path) -> dict[str, Any]:
    """Open each object, check it and save its picture; return what was seen, or that it was not."""
    manifest = run_manifest(results)
    shown = busiest_slice(images, results, manifest)
    seg = dcmread(results / "segmentation.dcm")
    labels = [str(segment.SegmentLabel) for segment in seg.SegmentSequence]
    found = found_sentences(manifest)
    if len(found) < 2 or len(labels) != len(found):
        raise SystemExit(f"{len(labels)} segments of {len(found)} sentences with a finding; at least two are needed")
    key, contours = min(results.glob("key*.dcm")), results / "rtstruct.dcm"
    names = [str(structure.ROIName) for structure in dcmread(contours).StructureSetROISequence]

    def masks(viewer: Viewer) -> dict[str, Any]:
        seen = check_masks(viewer, labels, shown)
        check_panel(viewer, labels)
        return seen

    objects: dict[str, tuple[Path, Callable[[Viewer], dict[str, Any]]]] = {
        "seg": (results / "segmentation.dcm", masks),
        "sr": (results / "report.dcm", lambda viewer: check_report(viewer, results / "report.dcm")),
        "sc": (key, lambda viewer: check_key_image(viewer, key)),
        "rtstruct": (contours, lambda viewer: check_contours(viewer, names, shown)),
    }
    seen: dict[str, Any] = {}
    for name, (path, check) in objects.items():
        header = dcmread(path, stop_before_pixels=True)
        with chromium.viewer(header.StudyInstanceUID, header.SeriesInstanceUID) as viewer:
            try:
                seen[name] = check(viewer)
            except NotShown as error:
                seen[name] = {"not_shown": str(error)}
            viewer.save(pictures / f"viewer_{name}.png")
    return {"seen": seen}


if __name__ == "__main__":
    sys.exit(main())
