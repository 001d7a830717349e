"""The engine directory and its manifest, which changed or foreign engines are rejected by."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lsms_rt.body import CROPS
from lsms_rt.digest import sha256, sha256_of_json
from lsms_rt.errors import (
    EngineDigestError,
    EngineFileMissingError,
    EngineFormatError,
    EngineInvalidError,
    InputError,
    brief,
)

from .registry import BACKENDS, ONNXRUNTIME

# The newest format that this package reads; increased when an older package could not read a directory.
# Format 2 has the field crop.
FORMAT = 2
MANIFEST = "manifest.json"
# Slices per call of an engine, at most.
MAX_BATCH = 1024
REBUILD = "rebuild it: lsms-rt build-engine --checkpoint DIR -o NAME.engine"


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime needs to know before it opens a graph.

    Attributes:
        preset: size of the model.
        weights_digest: sha256 of the checkpoint's weights.
        weights_note: description of the weights, shown with every result.
        backend: name of the backend that runs the engine.
        backend_version: version of its library that the engine was built with.
        precision: "fp32", "fp16" or "int8".
        image_size: S, the side of the network's input in pixels.
        channels: channels of the network's input.
        hu_window: (lower, upper) in HU, mapped to [-1, 1].
        orientation: of the network's input.
        max_tokens: T, the number of tokens of a sentence.
        max_batch: largest batch.
        profile: (min, opt, max) batch.
        threshold: pixels with a higher probability are in the mask.
        confidence: if no pixel reaches this probability, nothing is found.
        kernels: "stock" or "triton".
        compute_capability: of the GPU that the plans were built on; None for graphs.
        device_name: name of that GPU.
        target_capabilities: architectures that portable plans were built for, e.g. ("sm_86",).
        calibration: origin of the INT8 layers; None for other precisions.
        gate: accuracy that an engine below fp32 lost on held-out sentences.
        accuracy: difference from the reference, measured by the build, and with what (``measured_with``).
        kept_in_fp32: number of operations per graph that an fp16 engine computes in float32.
        plan_options: options of the plan builder: hardware and version compatibility, workspace.
        files: names of the files and their sha256, in hexadecimal.
        built_by: program and version that built the engine.
        crop: what of a slice the network sees: "none", all of it, or "body", the square around the body.
        format: version of the directory's format.
        manifest_digest: sha256 of all other fields.
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
    crop: str = "none"
    format: int = 1
    manifest_digest: str = ""

    @property
    def rebuild(self) -> str:
        """Return the command that builds the same engine again."""
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
        """Return the text of ``manifest.json``, with the digest of all other fields."""
        values = asdict(self)
        return json.dumps(values | {"manifest_digest": fields_digest(values)}, indent=2) + "\n"


def batch_profile(max_batch: int, opt_batch: int | None = None) -> tuple[int, int, int]:
    """Return (min, opt, max) batch; the minimum is 1, since ``predict`` runs one slice.

    Args:
        max_batch: largest batch.
        opt_batch: batch to optimize for; None: ``max_batch``, but at most 8.

    Raises:
        InputError: ``opt_batch`` is not between 1 and ``max_batch``.
    """
    opt_batch = min(max_batch, 8) if opt_batch is None else opt_batch
    if not 1 <= opt_batch <= max_batch:
        raise InputError(f"--opt-batch {opt_batch}; give 1 to --max-batch {max_batch}")
    return 1, opt_batch, max_batch


def fields_digest(values: dict[str, Any]) -> str:
    """Return the digest of a manifest's fields without ``manifest_digest``; it detects corruption, not tampering."""
    return sha256_of_json({name: value for name, value in values.items() if name != "manifest_digest"})


@dataclass(frozen=True)
class EngineDirectory:
    """An engine directory with a valid manifest; :meth:`read` checks its other files.

    Attributes:
        path: the directory.
        manifest: its manifest.
        digest: "sha256:" and the digest of ``manifest.json``, which contains those of all other files: a digest from a
            trusted source verifies the whole directory.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """Read the file ``name`` and check its digest.

        The returned bytes are those that were checked, so the file cannot be replaced in between.

        Raises:
            EngineError: a subclass says whether the file is missing or changed.
        """
        expected = self.manifest.files.get(name)
        fix = f"rebuild it: {self.manifest.rebuild}"
        if expected is None:
            raise EngineInvalidError(f"{self.path / MANIFEST} does not list {name}; {fix}")
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise EngineFileMissingError(
                f"{name} is missing in {self.path}, and its manifest lists it; {fix}"
            ) from error
        actual = sha256(data)
        if actual != expected:
            raise EngineDigestError(
                f"{self.path / name} has changed: sha256 {actual[:12]}..., not {expected[:12]}...; {fix}"
            )
        return data


def open_directory(path: str | Path, digest: str | None = None) -> EngineDirectory:
    """Read and check the manifest of an engine.

    Args:
        path: the engine directory.
        digest: "sha256:HEX" of the engine from a trusted source, which is then compared; None: no check.

    Raises:
        EngineError: a subclass says what is wrong.
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
            f"{path} is not an engine directory: it has no {MANIFEST}; check the path, or {REBUILD}"
        )
    data = file.read_bytes()
    actual = f"sha256:{sha256(data)}"
    if digest is not None and digest.lower() != actual:
        raise EngineDigestError(
            f"{file} has digest {actual}, not the expected {digest}; get the engine from a trusted source again"
        )
    return EngineDirectory(path, _parse(file, data), actual)


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write ``manifest.json`` into ``path`` and return the engine's digest."""
    data = manifest.to_json().encode()
    (path / MANIFEST).write_bytes(data)
    return f"sha256:{sha256(data)}"


def _parse(file: Path, data: bytes) -> Manifest:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EngineInvalidError(f"{file} is not valid JSON ({brief(error)}); {REBUILD}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise EngineInvalidError(f"{file} is not an engine manifest: it has no format number; {REBUILD}")
    if values["format"] > FORMAT:
        raise EngineFormatError(
            f"{file} has format {values['format']}, this lsms-rt reads up to {FORMAT}; pip install --upgrade lsms-rt"
        )
    actual = fields_digest(values)
    if values.get("manifest_digest") != actual:
        raise EngineDigestError(
            f"{file} has changed since it was built: its fields have digest {actual[:12]}...; {REBUILD}"
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
    """Whether a value can be the end of an HU window: finite, and in the range of float32."""
    return isinstance(value, (int, float)) and abs(value) < 1e6 and math.isfinite(value)


def _check(file: Path, manifest: Manifest) -> None:
    """Reject values that a runtime would fail on; digests do not help against a manifest that was written wrong."""
    integers = {"image_size": 32, "channels": 1, "max_tokens": 3, "max_batch": 1}
    for name, minimum in integers.items():
        value = getattr(manifest, name)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= 8192:
            what = f"{name} is {brief(repr(value))}, not an integer from {minimum} to 8192"
            raise EngineInvalidError(f"{file}: {what}; {REBUILD}")
    window = manifest.hu_window
    if not (isinstance(window, tuple) and len(window) == 2 and all(_is_hu(v) for v in window)):
        raise EngineInvalidError(f"{file}: hu_window is {brief(repr(window))}, not (lower, upper) in HU; {REBUILD}")
    if not window[0] < window[1]:
        raise EngineInvalidError(f"{file}: hu_window is {window!r}, the lower bound is not below the upper; {REBUILD}")
    if manifest.crop not in CROPS:
        what = f"crop is {brief(repr(manifest.crop))}, not one of {', '.join(CROPS)}"
        raise EngineInvalidError(f"{file}: {what}; {REBUILD}")
    for name in ("threshold", "confidence"):
        value = getattr(manifest, name)
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise EngineInvalidError(f"{file}: {name} is {brief(repr(value))}, not between 0 and 1; {REBUILD}")
    for name in _TEXTS:
        value = getattr(manifest, name)
        if not (isinstance(value, str) and value.isprintable() and len(value) <= 200):
            raise EngineInvalidError(f"{file}: {name} is not a text of one line and at most 200 characters; {REBUILD}")
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
