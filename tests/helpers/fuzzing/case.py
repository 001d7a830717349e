"""One input of the fuzzer: some files, and which path among them is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

# Stands where a patient's data would: in tags of the seeds and in the names of their files. No message may hold it.
MARKER = "ZQMARKER"


class Wrong(Exception):
    """A result that breaks what is promised of results."""


@dataclass(frozen=True)
class Case:
    """`files` maps relative paths to bytes; `entry` is the file or folder that is opened."""

    format: str
    entry: str
    files: dict[str, bytes]

    def data(self, name: str | None = None) -> bytes:
        return self.files[name or self.entry]

    def with_file(self, name: str, data: bytes) -> Case:
        return replace(self, files={**self.files, name: data})

    def without_file(self, name: str) -> Case:
        return replace(self, files={n: d for n, d in self.files.items() if n != name})

    def write(self, folder: Path) -> Path:
        """Write all files below an empty folder; returns the path to open."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (folder / self.entry).parent.mkdir(parents=True, exist_ok=True)
        return folder / self.entry


def case_of_path(path: Path) -> Case:
    """A saved case: a file, or a folder whose only child is what is opened."""
    if path.is_file():
        return Case("corpus", path.name, {path.name: path.read_bytes()})
    files = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    entry = "DICOMDIR" if "DICOMDIR" in files else next(iter(files)).split("/")[0]
    return Case("corpus", entry, files)
