"""The engine directory and its manifest, which changed or foreign engines are rejected by."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lsms_rt.digest import sha256, sha256_of_json
from lsms_rt.errors import (
    EngineDigestError,
    EngineFileMissingError,
    EngineFormatError,
    EngineInvalidError,
    InputError,
    brief,
)

from .files import read_file
from .gate import DEFAULT_BUDGET
from .onnx_file import check_graph
from .registry import BACKENDS, ONNXRUNTIME
from .vocabulary import FIELDS, MAX_INPUT_VALUES, shown
from .vocabulary import MAX_BATCH as MAX_BATCH

# The newest format that this package reads; increased when an older package could not read a directory.
# Format 2 has the field crop, format 3 the precision bf16.
FORMAT = 3
MANIFEST = "manifest.json"
REBUILD = "rebuild it: lsms-rt build-engine --checkpoint DIR -o NAME.engine"
# Of the manifest, of the tokenizer and other tables, and of a graph or plan: ONNX itself ends at 2 GiB.
MAX_MANIFEST_BYTES, MAX_JSON_BYTES, MAX_FILE_BYTES = 1 << 20, 64 << 20, 2 << 30


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime needs to know before it opens a graph.

    Attributes:
        preset: size of the model.
        weights_digest: sha256 of the checkpoint's weights.
        weights_note: description of the weights, shown with every result.
        backend: name of the backend that runs the engine.
        backend_version: version of its library that the engine was built with.
        precision: "fp32", "fp16", "bf16" or "int8".
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
        plan_options: options of the plan builder: hardware and version compatibility, workspace; the platform; the
            architecture of its ``plugins``, and why it has those ``kernels``.
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
    def rest(self) -> str | None:
        """The precision of an INT8 engine's other layers; None for other engines."""
        return (self.calibration or {}).get("rest") if self.precision == "int8" else None

    @property
    def rebuild(self) -> str:
        """Return the command that builds the same engine again."""
        spec = BACKENDS.get(self.backend)
        if spec is not None and spec is not ONNXRUNTIME and not spec.builds_plans and self.calibration is None:
            words = ["lsms-rt", "build-engine", "--from", "ENGINE", "--backend", spec.name]
            return shlex.join([*words, "--precision", self.precision, "-o", "NAME.engine"])
        words = ["lsms-rt", "build-engine", "--checkpoint", "DIR"]
        if spec is not None and spec is not ONNXRUNTIME:
            words += ["--backend", spec.name]
        if spec is not None and spec.builds_plans:
            words += ["--opt-batch", str(self.profile[1])]
            options = self.plan_options
            if options.get("hardware", "none") != "none":
                words += ["--hardware", options["hardware"]]
            words += ["--version-compatible"] * self.holds_host_code
        if self.calibration is not None:
            words += ["--calibration", "DIR", "--rest", self.calibration.get("rest", "fp16")]
        words += ["--precision", self.precision, "--image-size", str(self.image_size)]
        words += ["--max-batch", str(self.max_batch), "-o", "NAME.engine"]
        return shlex.join(words)

    @property
    def holds_host_code(self) -> bool:
        """Whether the plans bring code that runs on the CPU, as this user: version-compatible plans of TensorRT do."""
        return bool(self.plan_options.get("version_compatible"))

    @property
    def gate_verdict(self) -> str:
        """What the accuracy gate said of the engine.

        "not needed": fp32; "passed"; "passed by its graphs": what was made of them was not asked; "passed a wider
        budget" than the default; "accepted": it failed, and was written on demand; "skipped"; "no verdict": too few
        sentences; "incomplete": the record does not say within which budget, or of how many cases; "none": there was
        no gate.
        """
        gate = self.gate
        if not gate:
            return "not needed" if self.precision in ("fp32", "float32") else "none"
        if gate.get("skipped"):
            return "skipped"
        if gate.get("failures") or gate.get("accepted"):
            return "accepted"
        if not gate.get("passed"):
            return "no verdict"
        if gate.get("max_dice_drop") is None or not gate.get("cases"):
            return "incomplete"
        if gate["max_dice_drop"] > DEFAULT_BUDGET:
            return "passed a wider budget"
        return "passed by its graphs" if gate.get("of") else "passed"

    def to_json(self) -> str:
        """Return the text of ``manifest.json``, with the digest of all other fields."""
        values = asdict(self)
        return json.dumps(values | {"manifest_digest": fields_digest(values)}, indent=2) + "\n"


def format_of(crop: str, precision: str, rest: str | None) -> int:
    """Return the oldest format whose readers understand an engine with these fields of its manifest.

    Args:
        crop: what of a slice the network sees.
        precision: the engine's.
        rest: precision of an INT8 engine's other layers; None for other engines.
    """
    if "bf16" in (precision, rest):
        return 3
    # A package that does not know the field would not crop, and find other masks.
    return 1 if crop == "none" else 2


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
        trusted: whether the caller vouches for the engine, by its digest or explicitly; without it, an engine cannot
            run code of its own on the CPU.
    """

    path: Path
    manifest: Manifest
    digest: str
    trusted: bool = False

    def read(self, name: str) -> bytes:
        """Read the file ``name`` and check its digest; a graph must be complete in itself.

        The returned bytes are those that were checked, so the file cannot be replaced in between.

        Raises:
            EngineError: a subclass says whether the file is missing, changed, or not what an engine may hold.
        """
        expected = self.manifest.files.get(name)
        fix = f"rebuild it: {self.manifest.rebuild}"
        if expected is None:
            raise EngineInvalidError(f"{self.path / MANIFEST} does not list {name}; {fix}")
        try:
            data = read_file(self.path / name, MAX_JSON_BYTES if name.endswith(".json") else MAX_FILE_BYTES)
        except FileNotFoundError as error:
            raise EngineFileMissingError(
                f"{name} is missing in {self.path}, and its manifest lists it; {fix}"
            ) from error
        actual = sha256(data)
        if actual != expected:
            raise EngineDigestError(
                f"{self.path / name} has changed: sha256 {actual[:12]}..., not {expected[:12]}...; {fix}"
            )
        if name.endswith(ONNXRUNTIME.file_suffix):
            check_graph(data, str(self.path / name))
        return data


def open_directory(path: str | Path, digest: str | None = None, *, trust_host_code: bool = False) -> EngineDirectory:
    """Read and check the manifest of an engine.

    Args:
        path: the engine directory.
        digest: "sha256:HEX" of the engine from a trusted source, which is then compared; None: no check.
        trust_host_code: let the engine run code of its own on the CPU, which it may with a ``digest`` anyway.

    Raises:
        InputError: ``digest`` is no text.
        EngineError: a subclass says what is wrong.
    """
    given: Any = digest
    if given is not None and not isinstance(given, str):
        raise InputError(f'the digest is a {type(given).__name__}; give a text, "sha256:HEX"')
    path = Path(path)
    file = path / MANIFEST
    if not os.path.exists(path):
        raise EngineFileMissingError(
            f"{path}: no such engine; check the path (the bundled one is 'demo' on the command line, "
            "lsms_rt.demo_engine() in Python)"
        )
    try:
        data = read_file(file, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise EngineFileMissingError(
            f"{path} is not an engine directory: it has no {MANIFEST}; check the path, or {REBUILD}"
        ) from error
    actual = f"sha256:{sha256(data)}"
    if digest is not None and digest.lower() != actual:
        raise EngineDigestError(
            f"{file} has digest {actual}, not the expected {brief(digest, 80)}; get the engine from a trusted "
            "source again"
        )
    return EngineDirectory(path, _parse(file, data), actual, trusted=digest is not None or trust_host_code)


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
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise EngineInvalidError(f"{file} is not an engine manifest: it has no format number; {REBUILD}")
    if values["format"] > FORMAT:
        raise EngineFormatError(
            f"{file} has format {shown(values['format'])}, this lsms-rt reads up to {FORMAT}; "
            "pip install --upgrade lsms-rt"
        )
    try:
        actual = fields_digest(values)
    except RecursionError as error:
        raise EngineInvalidError(f"{file} is nested too deeply; {REBUILD}") from error
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


def _check(file: Path, manifest: Manifest) -> None:
    """Reject values that a runtime would fail on; digests do not help against a manifest that was written wrong."""
    for name, rule in FIELDS.items():
        value = getattr(manifest, name)
        if not rule.allows(value):
            raise EngineInvalidError(f"{file}: {name} is {shown(value)}, not {rule.words}; {REBUILD}")
    size, batch, largest = manifest.image_size, manifest.max_batch, manifest.profile[2]
    if batch > largest:
        raise EngineInvalidError(f"{file}: max_batch is {batch}, and the profile ends at {largest}; {REBUILD}")
    if size**2 * manifest.channels * largest > MAX_INPUT_VALUES:
        raise EngineInvalidError(
            f"{file}: {largest} slices of {manifest.channels}x{size}x{size} values are more than {MAX_INPUT_VALUES}; "
            "rebuild it with a smaller --max-batch"
        )
