"""Write the package's table of words into the bundled engine: ``python tests/helpers/bundled_table.py``.

Graphs and weights stay; the manifest gets the table's digest.  tests/sentences/test_contract.py fails if they differ.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lsms_rt
from lsms_rt.digest import sha256
from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.sentences import TABLE
from lsms_rt.sentences.contract import table_of


def write_table(engine: Path, data: bytes) -> None:
    """Put a table of words into an engine."""
    manifest = open_directory(engine).manifest
    (engine / TABLE).write_bytes(data)
    write_manifest(engine, replace(manifest, files=manifest.files | {TABLE: sha256(data)}))


if __name__ == "__main__":
    bundled = lsms_rt.demo_engine()
    write_table(bundled, table_of(bundled.parent / "demo"))
