"""Files of measurements: written with where they come from, read with a check of what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError

from .provenance import provenance

ENGINES, PEERS, SCALING = KINDS = "engines", "peers", "scaling"
FORMAT = 1
Record = dict[str, Any]


def record_of(kind: str, packages: tuple[str, ...], gpu: str | None = None, **fields: Any) -> Record:
    """A record of ``kind`` with device, versions, commit and date; ``packages`` that are not installed are left out."""
    return {"kind": kind, "format": FORMAT} | provenance(*packages, gpu=gpu) | fields


def read(path: Path) -> Record:
    """Raises :class:`InputError` for a file that is no record of ``lsms-rt bench``, or a newer one."""
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: not read ({error.strerror}); give a file that lsms-rt bench -o wrote") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); give a file that lsms-rt bench -o wrote") from error
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        raise InputError(f"{path} is no record of lsms-rt bench; give a file that lsms-rt bench -o wrote")
    if record.get("format", 0) > FORMAT:
        raise InputError(f"{path} has format {record['format']}, this lsms-rt reads up to {FORMAT}; upgrade it")
    return record


def digest(record: Record) -> str:
    """What a picture states, so that one can see whether it is of this record."""
    return sha256_of_json(record)


def device_of(record: Record) -> str:
    """Processor and GPU, in words."""
    device = record["device"]
    return device["processor"] + (f", {device['gpu']}" if device.get("gpu") else "")


def origin(record: Record) -> str:
    """Device, versions, commit and date in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{device_of(record)}; {versions}; commit {record['commit']}; {record['date']}"
