"""An engine directory while it is built: its manifest is in memory, and is written once, at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsms_rt.atomic import move_folder
from lsms_rt.digest import sha256
from lsms_rt.engine.manifest import MANIFEST, EngineDirectory, Manifest, open_directory, write_manifest
from lsms_rt.engine.registry import BACKENDS, find_backend
from lsms_rt.errors import EngineError, InputError


@dataclass(frozen=True)
class Draft:
    """An engine that is not finished.

    Attributes:
        folder: where its files are.
        manifest: its manifest, not on disk yet.
        not_run: why its files cannot be run on this machine; empty if they can.
    """

    folder: Path
    manifest: Manifest
    not_run: str = ""

    def noted(self, **fields: Any) -> Draft:
        """Return the draft with other values of some fields of its manifest."""
        return replace(self, manifest=replace(self.manifest, **fields))

    def open(self) -> EngineDirectory:
        """Return the engine as it would be if it were finished now."""
        digest = f"sha256:{sha256(self.manifest.to_json().encode())}"
        # It was made here.
        return EngineDirectory(self.folder, self.manifest, digest, trusted=True)

    def finish(self, output: Path) -> None:
        """Write the manifest, and move the folder to ``output``; an engine that is there is replaced."""
        write_manifest(self.folder, self.manifest)
        # What is written must open.
        open_directory(self.folder)
        move_folder(self.folder, output)


def copied(engine: EngineDirectory, folder: Path) -> Draft:
    """Copy an engine's files into the new ``folder``: the bytes that were checked."""
    folder.mkdir()
    for name in engine.manifest.files:
        (folder / name).write_bytes(engine.read(name))
    return Draft(folder, engine.manifest)


def relabeled(engine: EngineDirectory, backend: str, precision: str, rest: str | None) -> EngineDirectory:
    """Return an engine of graphs as if it were one for another backend or precision: its files stay the same.

    Args:
        engine: the engine.
        backend: the backend's name.
        precision: of the engine.
        rest: of an INT8 engine's other layers; None for other engines.
    """
    calibration = (engine.manifest.calibration or {}) | {"rest": rest} if rest else None
    manifest = replace(engine.manifest, backend=backend, precision=precision, calibration=calibration)
    return replace(engine, manifest=manifest)


def check_output(output: Path, force: bool, report: Path | None = None, source: Path | None = None) -> None:
    """Raise :class:`InputError` unless an engine may be written to ``output``.

    Args:
        output: the engine.
        force: whether an engine that is there is replaced.
        report: the gate's report, which cannot be in the engine.
        source: the engine that it is made of, which cannot be replaced.
    """
    if source is not None and output.exists() and output.resolve() == source.resolve():
        raise InputError(f"-o {output} is the engine that --from reads; choose another -o")
    if output.exists() and not force:
        raise InputError(f"{output} exists; choose another -o, or add --force to replace it")
    if output.exists():
        try:
            engine = open_directory(output)
        except EngineError as error:
            raise InputError(
                f"{output} exists and is not an engine, so it is not replaced; choose another -o"
            ) from error
        others = {path.name for path in output.iterdir()} - {MANIFEST, *engine.manifest.files}
        if others:
            raise InputError(
                f"{output} holds {len(others)} files that are not the engine's and would be deleted with it; move them"
            )
    if report is not None and report.resolve().is_relative_to(output.resolve()):
        raise InputError(f"--report {report} is inside the engine; choose a file outside {output}")


def check_source(engine: EngineDirectory) -> None:
    """Raise :class:`InputError` unless an engine's files are graphs, which another can be made of."""
    if find_backend(engine.manifest.backend, str(engine.path)).builds_plans:
        graphs = [spec.name for spec in BACKENDS.values() if not spec.builds_plans]
        raise InputError(
            f"--from {engine.path} is an engine of {engine.manifest.backend}; give one of {' or '.join(graphs)}"
        )


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file in a folder, by the file's name."""
    return {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())}


def measured_with(manifest: Manifest) -> str:
    """Return what ran when an engine was compared: backend, version and device."""
    device = f" on {manifest.device_name}" if manifest.device_name else ""
    return f"{manifest.backend} {manifest.backend_version}{device}"
