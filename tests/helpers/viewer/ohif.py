"""OHIF's pages, from its package, and their configuration."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

VERSION = "3.13.2"
SHA512 = (
    "5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3dee"
    "a3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10"
)
# What names the source of data in OHIF's addresses.
SOURCE = "orthanc"


def pages(cache: Path) -> Path:
    """Return the folder of OHIF's pages; npm fetches the package into ``cache`` once."""
    folder = cache / f"ohif-{VERSION}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as work:
            command = ["npm", "pack", "--silent", "--pack-destination", work, f"@ohif/app@{VERSION}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (package,) = Path(work).glob("*.tgz")
            if hashlib.sha512(package.read_bytes()).hexdigest() != SHA512:
                raise SystemExit(f"the package of OHIF {VERSION} is not the one that was tried: its SHA-512 differs")
            with tarfile.open(package) as archive:
                archive.extractall(Path(work) / "content", filter="data")
            (Path(work) / "content" / "package" / "dist").rename(folder)
    return folder


def configuration(dicomweb: str) -> dict[str, Any]:
    """Return OHIF's configuration: one archive, read only, at the path or address ``dicomweb``."""
    source = {
        "friendlyName": "Orthanc",
        "name": SOURCE,
        "qidoRoot": dicomweb,
        "wadoRoot": dicomweb,
        "wadoUriRoot": dicomweb,
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "singlepart": "bulkdata,video",
        "bulkDataURI": {"enabled": True},
        "omitQuotationForMultipartRequest": True,
    }
    return {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "defaultDataSourceName": SOURCE,
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": SOURCE,
                "configuration": source,
            }
        ],
        # Dialogs and tours cover the images.
        "disableConfirmationPrompts": True,
        "customizationService": {"ohif.tours": {"$set": []}},
        "investigationalUseDialog": {"option": "never"},
    }


def script(dicomweb: str) -> str:
    """Return the content of app-config.js."""
    return f"window.config = {json.dumps(configuration(dicomweb), indent=2)};\n"
