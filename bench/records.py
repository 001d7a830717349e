"""Records of measurements: one JSON format for every benchmark, with the device, versions, commit and date."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lsms_rt.atomic import write_text
from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError

from .provenance import provenance

ENGINES, PEERS, SCALING = "engines", "peers", "scaling"
ACCURACY, INT8, HALF_PRECISION, PLANS = "accuracy", "int8", "half_precision", "plans"
GATE, PROBES, SENTENCES, SERVE, SERVERS = "gate", "probes", "sentences", "serve", "servers"
ROOFLINE, AOT = "roofline", "kernels_compiled"
KERNELS_VERIFIED, RUNTIME_VERIFIED, CEILINGS = "kernels_verified", "runtime_verified", "ceilings"
KERNELS_TIMED, PARTS_TIMED, MODELS_TIMED = "kernels_timed", "parts_timed", "models_timed"
PLUGINS_VERIFIED, SANITIZED, SHARES = "plugins_verified", "sanitized", "shares"
ARCHIVE = "archive"

# Kind -> the fields that name one of its ``rows``.  Kinds without such rows have none.
KINDS: dict[str, tuple[str, ...]] = {
    ENGINES: (),
    PEERS: ("name",),
    SCALING: (),
    ACCURACY: (),
    INT8: ("name",),
    PROBES: ("attribute", "true_of"),
    GATE: ("lesions", "lost", "noise"),
    SENTENCES: ("input", "sentences"),
    SERVE: ("loop", "clients"),
    SERVERS: ("clients", "generator", "server"),
    HALF_PRECISION: ("case",),
    ARCHIVE: (),
    PLANS: ("preset", "precision", "image_size", "max_batch"),
    ROOFLINE: ("preset", "stage", "batch", "gpu"),
    AOT: ("kernel", "shape", "arch"),
    KERNELS_VERIFIED: ("part", "kernel", "output", "shape", "batch", "tokens", "ptxas"),
    PLUGINS_VERIFIED: ("kernel", "output", "shape", "batch"),
    SANITIZED: ("check", "kernel", "shape"),
    RUNTIME_VERIFIED: ("what",),
    CEILINGS: (),
    KERNELS_TIMED: ("kernel", "shape", "batch", "ptxas"),
    PARTS_TIMED: ("part", "shape", "batch"),
    MODELS_TIMED: ("preset", "image_size", "batch"),
    SHARES: ("preset", "image_size", "batch", "way"),
}
FORMAT = 1
Record = dict[str, Any]


def record_of(kind: str, packages: tuple[str, ...], gpu: str | None = None, **fields: Any) -> Record:
    """Return a record with device, versions, commit and date.

    Args:
        kind: One of ``KINDS``.
        packages: Distributions whose versions matter; those that are not installed are omitted.
        gpu: Name of the GPU, if one was measured.
        fields: What was measured, in plain types; "what" describes it in words.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of record; add it to KINDS")
    return {"kind": kind, "format": FORMAT} | provenance(*packages, gpu=gpu) | fields


def read(path: Path) -> Record:
    """Read a record of any kind.

    Raises:
        InputError: The file cannot be read, is not a record of a benchmark, or has a newer format.
    """
    fix = "pass a file that a benchmark of lsms-rt wrote (-o FILE)"
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {fix}") from error
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{path} is not a record of a benchmark (kind: {kind!r}); {fix}")
    if record.get("format", 0) > FORMAT:
        raise InputError(
            f"{path} has format {record['format']}, but this lsms-rt reads up to {FORMAT}; upgrade lsms-rt"
        )
    return record


def write(path: Path, record: Record) -> None:
    """Write a record; rows of plain values take one line each, so that a changed row is a changed line."""
    rows = record.get("rows")
    if not (isinstance(rows, list) and rows and all(_is_flat(row) for row in rows)):
        write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
        return
    rest = json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=1, allow_nan=False)
    body = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    write_text(path, f'{rest.removesuffix("}").rstrip()},\n "rows": [\n{body}\n]}}\n')


def _is_flat(row: Any) -> bool:
    return isinstance(row, dict) and not any(isinstance(value, dict) for value in row.values())


def rows_of(record: Record) -> list[dict[str, Any]]:
    """Return the rows of a record as a list; those of ``half_precision``, stored by name, carry their name."""
    rows = record.get("rows", [])
    if record["kind"] == HALF_PRECISION:
        return [{"case": name} | row for name, row in rows.items()]
    return list(rows)


def digest(record: Record) -> str:
    """Return a digest, which pictures state so that one can see which record they show."""
    return sha256_of_json(record)


def device_of(record: Record) -> str:
    """Return the processor and the GPU in words."""
    device = record.get("device", {})
    return ", ".join(device[name] for name in ("processor", "gpu") if device.get(name)) or "device not recorded"


def origin(record: Record) -> str:
    """Return the device, versions, commit and date in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    commit = f"commit {record['commit']}" if "commit" in record else ""
    return "; ".join(filter(None, (device_of(record), versions, commit, record.get("date"))))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``-o FILE``, which writes the record, and ``--json``, which prints it."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON file to write (default: none)")
    parser.add_argument("--json", action="store_true", help="print the record as JSON instead of a table")


def put(record: Record, table: str, options: argparse.Namespace) -> None:
    """Write and print a record as :func:`add_output_options` asks for."""
    if options.output:
        write(options.output, record)
    print(json.dumps(record, indent=1, allow_nan=False) if options.json else table)
