"""The parts of ``make viewer`` that need neither Orthanc nor a browser, and what its last run saw."""

from __future__ import annotations

import http.server
import json
import re
import threading
import urllib.error
from pathlib import Path

import numpy as np
import orthanc
import pytest
from PIL import Image
from viewer import ohif
from viewer.site import DICOMWEB, site
from viewer.written import busiest_slice, found_sentences, run_manifest

from lsms_rt.datasets.ct_file import CtNames, write_ct

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "docs/viewer.json").read_text())


def get(address: str) -> str:
    with orthanc.DIRECT.open(address, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_last_run_saw_all_objects() -> None:
    assert sorted(RECORD["seen"]) == ["rtstruct", "sc", "seg", "sr"]
    assert not [name for name, seen in RECORD["seen"].items() if "not_shown" in seen]
    assert len(RECORD["seen"]["seg"]["regions"]) >= 4
    assert all(group["Volume"] and group["Long axis"] for group in RECORD["seen"]["sr"]["shown"])


def test_the_last_run_had_the_versions_that_are_installed() -> None:
    playwright = re.search(r"playwright==([\d.]+)", (ROOT / "Makefile").read_text())
    assert playwright is not None
    assert RECORD["versions"]["playwright"] == playwright[1]
    assert RECORD["versions"]["OHIF"] == ohif.VERSION


@pytest.mark.parametrize("name", ["seg", "sr", "sc"])
def test_pictures_of_the_viewer_are_small(name: str) -> None:
    assert (ROOT / f"docs/viewer_{name}.png").stat().st_size < 400_000


def test_the_archive_can_be_reached_from_this_machine_only(tmp_path: Path) -> None:
    settings = orthanc.configuration(tmp_path, 8042)
    assert settings["RemoteAccessAllowed"] is False
    assert settings["DicomServerEnabled"] is False
    assert settings["StorageDirectory"] == str(tmp_path)


def test_ohif_reads_its_configuration_as_a_script() -> None:
    content = re.fullmatch(r"window\.config = (.*);\n", ohif.script("/dicom-web"), re.DOTALL)
    assert content is not None
    (source,) = json.loads(content[1])["dataSources"]
    assert {source["configuration"][root] for root in ("qidoRoot", "wadoRoot")} == {"/dicom-web"}


def test_pages_and_archive_are_at_one_address(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("the application")
    (pages / "part.js").write_text("a part")
    (tmp_path / "secret").write_text("outside")

    class Orthanc(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()
            self.wfile.write(f"{self.path} for {self.headers['Host']}, {self.headers['Accept']}".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Orthanc) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with site(pages, "window.config = {};", server.server_port) as address:
                host = address.removeprefix("http://")
                assert get(f"{address}/part.js") == "a part"
                assert get(f"{address}/viewer?StudyInstanceUIDs=1") == "the application"
                assert get(f"{address}/app-config.js") == "window.config = {};"
                assert get(f"{address}/../secret") == "the application"
                assert get(f"{address}{DICOMWEB}/studies?a=1") == f"{DICOMWEB}/studies?a=1 for {host}, None"
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    get(f"{address}{DICOMWEB}/missing")
        finally:
            server.shutdown()
            thread.join()


def test_regions_are_sampled_where_the_masks_say(tmp_path: Path) -> None:
    """Two overlapping masks in one slice, one mask in the other: four regions, with positions in the patient."""
    first, second = np.zeros((40, 50), np.uint8), np.zeros((40, 50), np.uint8)
    first[5:20, 5:30] = second[5:20, 20:45] = 255
    rows = []
    for instance, masks in enumerate(((first, np.zeros_like(second)), (first, second)), start=1):
        header = {"InstanceNumber": instance, "ImagePositionPatient": [-100, -80, 7 * instance], "PixelSpacing": [2, 3]}
        hu = np.full(first.shape, 60)
        write_ct(tmp_path / f"{instance}.dcm", hu, CtNames("study", "series", "frame", f"image {instance}"), header)
        for number, mask in enumerate(masks, start=1):
            Image.fromarray(mask).save(tmp_path / f"{instance}_{number}.png")
            row = {"source": f"{instance}.dcm", "sentence": number, "mask": f"{instance}_{number}.png"}
            rows.append(row | {"found": bool(mask.any())})
    (tmp_path / "results.json").write_text(json.dumps({"results": rows}))
    manifest = run_manifest(tmp_path)
    shown = busiest_slice(tmp_path, tmp_path, manifest)
    assert found_sentences(manifest) == [1, 2]
    assert shown.instance == 2
    assert {region.sentences for region in shown.regions} == {frozenset(s) for s in ((), (1,), (2,), (1, 2))}
    for region in shown.regions:
        columns, lines = np.rint((region.points[:, 0] + 100) / 3), np.rint((region.points[:, 1] + 80) / 2)
        inside = [
            first[int(y), int(x)] // 255 + second[int(y), int(x)] // 255 for x, y in zip(columns, lines, strict=True)
        ]
        assert set(inside) == {len(region.sentences)}
        assert set(region.points[:, 2]) == {14.0}
