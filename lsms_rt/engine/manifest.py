"""The engine directory and its manifest: what an engine is, and how a changed or foreign one is refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lsms_rt.errors import (
    EngineDigestError,
    EngineFileMissingError,
    EngineFormatError,
    EngineInvalidError,
    InputError,
    brief,
)

from .registry import BACKENDS, ONNXRUNTIME

FORMAT = 1  # of the directory; raised when an older package could not read it
MANIFEST = "manifest.json"
REBUILD = "build it again: lsms-rt build-engine --checkpoint DIR -o NAME.engine"


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know before it opens a graph.

    ``hu_window`` is (lower, upper) in HU, mapped to [-1, 1].  ``threshold`` turns probabilities into a mask;
    where no pixel reaches ``confidence`` the answer is "not found".  ``profile`` is (min, opt, max) batch.
    ``accuracy`` is what the build measured against the reference, and with what (``measured_with``).
    ``gate`` is what an engine in less than fp32 lost on held-out sentences, ``calibration`` where its INT8 layers come
    from.
    ``kept_in_fp32`` counts the operations of an fp16 engine that stay in float32, a graph at a time.
    ``plan_options`` are the builder's: hardware and version compatibility, workspace.
    ``files`` maps names to sha256 hex digests.
    """

    preset: str
    weights_digest: str
    weights_note: str
    backend: str
    backend_version: str
    precision: str
    image_size: int
    channels: int
    hu_window: tuple[float, float]
    orientation: str
    max_tokens: int
    max_batch: int
    profile: tuple[int, int, int]
    threshold: float
    confidence: float
    kernels: str
    compute_capability: str | None = None
    device_name: str | None = None
    target_capabilities: tuple[str, ...] = ()
    calibration: dict[str, Any] | None = None
    gate: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    kept_in_fp32: dict[str, Any] = field(default_factory=dict)
    plan_options: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    built_by: str = ""
    format: int = FORMAT
    manifest_digest: str = ""

    @property
    def rebuild(self) -> str:
        """The command that makes the same engine again."""
        command = "lsms-rt build-engine --checkpoint DIR"
        spec = BACKENDS.get(self.backend)
        if spec is not ONNXRUNTIME:
            command += f" --backend {self.backend}"
        if spec is not None and spec.builds_plans:
            command += f" --opt-batch {self.profile[1]}"
            options = self.plan_options
            if options.get("hardware", "none") != "none":
                command += f" --hardware {options['hardware']}"
            command += " --version-compatible" * bool(options.get("version_compatible"))
        if self.calibration is not None:
            command += f" --calibration DIR --rest {self.calibration.get('rest', 'fp16')}"
        return (
            f"{command} --precision {self.precision} --image-size {self.image_size} --max-batch {self.max_batch} "
            "-o NAME.engine"
        )

    def to_json(self) -> str:
        """The text of ``manifest.json``, with the digest of all its other fields."""
        values = asdict(self)
        return json.dumps(values | {"manifest_digest": fields_digest(values)}, indent=2) + "\n"


def batch_profile(most: int, best: int | None = None) -> tuple[int, int, int]:
    """(min, opt, max) batch.  The smallest is 1, since ``predict`` asks for one slice; ``best`` is by default up to 8.

    Raises :class:`InputError` for a best batch that is none of them.
    """
    best = min(most, 8) if best is None else best
    if not 1 <= best <= most:
        raise InputError(f"--opt-batch {best}; give 1 to --max-batch {most}")
    return 1, best, most


def sha256(data: bytes) -> str:
    """Hex digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def fields_digest(values: dict[str, Any]) -> str:
    """Digest of a manifest's fields but ``manifest_digest``: shows an accident, though not a forgery."""
    rest = {name: value for name, value in values.items() if name != "manifest_digest"}
    return sha256(json.dumps(rest, sort_keys=True).encode())


@dataclass(frozen=True)
class EngineDirectory:
    """An engine whose manifest has been read and, by :meth:`read`, whose files are checked one by one.

    ``digest`` is "sha256:" and the digest of ``manifest.json``, which holds those of all other files: whoever gets it
    from a trusted place can trust the whole directory.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """The bytes of file ``name``, only if they are the ones the manifest was written with.

        The same bytes that were checked are returned, so nothing can be swapped in between.
        """
        expected = self.manifest.files.get(name)
        again = f"build it again: {self.manifest.rebuild}"
        if expected is None:
            raise EngineInvalidError(f"{self.path / MANIFEST} names no {name}; {again}")
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise EngineFileMissingError(f"{self.path} lacks {name}, which its manifest names; {again}") from error
        found = sha256(data)
        if found != expected:
            raise EngineDigestError(
                f"{self.path / name} has changed: sha256 {found[:12]}..., not {expected[:12]}...; {again}"
            )
        return data


def open_directory(path: str | Path, digest: str | None = None) -> EngineDirectory:
    """Read and check the manifest of the engine at ``path``.

    ``digest`` ("sha256:HEX"), from a trusted place, must then be the manifest's.  Raises a subclass of ``EngineError``.
    """
    path = Path(path)
    file = path / MANIFEST
    if not path.exists():
        raise EngineFileMissingError(
            f"{path}: no such engine; check the path (the bundled one is 'demo' on the command line, "
            "lsms_rt.demo_engine() in Python)"
        )
    if not file.is_file():
        raise EngineFileMissingError(
            f"{path} is no engine directory: it has no {MANIFEST}; check the path, or {REBUILD}"
        )
    data = file.read_bytes()
    found = f"sha256:{sha256(data)}"
    if digest is not None and digest.lower() != found:
        raise EngineDigestError(
            f"{file} has digest {found}, not the expected {digest}; take the engine from a trusted place"
        )
    return EngineDirectory(path, _parse(file, data), found)


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write ``manifest.json`` into ``path`` and return the engine's digest."""
    data = manifest.to_json().encode()
    (path / MANIFEST).write_bytes(data)
    return f"sha256:{sha256(data)}"


def _parse(file: Path, data: bytes) -> Manifest:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EngineInvalidError(f"{file} is no JSON ({brief(error)}); {REBUILD}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise EngineInvalidError(f"{file} is no manifest of an engine: it states no format; {REBUILD}")
    if values["format"] > FORMAT:
        raise EngineFormatError(
            f"{file} has format {values['format']}, this lsms-rt reads up to {FORMAT}; pip install --upgrade lsms-rt"
        )
    found = fields_digest(values)
    if values.get("manifest_digest") != found:
        raise EngineDigestError(
            f"{file} has changed since it was built: its fields have digest {found[:12]}...; {REBUILD}"
        )
    known = {f.name for f in fields(Manifest)}
    try:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        manifest = Manifest(**plain)
    except TypeError as error:
        raise EngineInvalidError(f"{file} is incomplete ({brief(error)}); {REBUILD}") from error
    _check(file, manifest)
    return manifest


_TEXTS = ("preset", "backend", "backend_version", "precision", "kernels", "weights_digest", "weights_note", "built_by")


def _is_hu(value: object) -> bool:
    """Whether a window may end there: finite, and nothing that float32 would not hold."""
    return isinstance(value, (int, float)) and abs(value) < 1e6 and math.isfinite(value)


def _check(file: Path, manifest: Manifest) -> None:
    """Refuse values that a runtime would stumble over; digests do not help against a manifest made wrong."""
    integers = {"image_size": 32, "channels": 1, "max_tokens": 3, "max_batch": 1}
    for name, least in integers.items():
        value = getattr(manifest, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 8192:
            what = f"{name} is {brief(repr(value))}, not a whole number of at least {least}"
            raise EngineInvalidError(f"{file}: {what}; {REBUILD}")
    window = manifest.hu_window
    if not (isinstance(window, tuple) and len(window) == 2 and all(_is_hu(v) for v in window)):
        raise EngineInvalidError(f"{file}: hu_window is {brief(repr(window))}, not (lower, upper) in HU; {REBUILD}")
    if not window[0] < window[1]:
        raise EngineInvalidError(f"{file}: hu_window is {window!r}, its lower end is not below its upper; {REBUILD}")
    for name in ("threshold", "confidence"):
        value = getattr(manifest, name)
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise EngineInvalidError(f"{file}: {name} is {brief(repr(value))}, not between 0 and 1; {REBUILD}")
    for name in _TEXTS:
        value = getattr(manifest, name)
        if not (isinstance(value, str) and value.isprintable() and len(value) <= 200):
            raise EngineInvalidError(f"{file}: {name} is no text of one line and at most 200 characters; {REBUILD}")
    profile = manifest.profile
    if not (isinstance(profile, tuple) and len(profile) == 3 and all(type(v) is int and v >= 1 for v in profile)):
        raise EngineInvalidError(f"{file}: profile is {brief(repr(profile))}, not three batch sizes; {REBUILD}")
    if not (isinstance(manifest.plan_options, dict) and isinstance(manifest.target_capabilities, tuple)):
        raise EngineInvalidError(f"{file}: plan_options or target_capabilities are malformed; {REBUILD}")
    if not (manifest.calibration is None or isinstance(manifest.calibration, dict)):
        raise EngineInvalidError(f"{file}: calibration is malformed; {REBUILD}")
    digests = manifest.files.values() if isinstance(manifest.files, dict) else [None]
    plain = all(isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) for v in digests)
    if not plain or any(Path(name).name != name or name.startswith(".") for name in manifest.files):
        raise EngineInvalidError(f"{file}: files must map plain names to digests; {REBUILD}")
