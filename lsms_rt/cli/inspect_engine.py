"""``lsms-rt inspect``: print an engine's manifest and check its files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lsms_rt.errors import one_line

from .arguments import add_engine, add_json
from .parser import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    from lsms_rt.engine import open_directory

    engine = open_directory(arguments.engine, arguments.digest)
    sizes = {name: len(engine.read(name)) for name in engine.manifest.files}
    manifest = asdict(engine.manifest)
    if arguments.json:
        print(json.dumps({"digest": engine.digest, "bytes": sizes, "manifest": manifest}, indent=2))
        return
    print(f"{one_line(engine.path)}: all file digests match\ndigest {engine.digest}")
    if engine.manifest.holds_host_code:
        print("its plans bring code for the CPU, which runs with --digest or --trust only")
    manifest["files"] = ", ".join(f"{file} ({size / 1e6:.1f} MB)" for file, size in sizes.items())
    # It is part of the digest above.
    del manifest["manifest_digest"]
    for name, value in manifest.items():
        _print_value(name.replace("_", " "), value)


def _print_value(name: str, value: Any) -> None:
    """Print a field on one line; expand nested fields, skip empty ones."""
    if isinstance(value, dict):
        for part, nested in value.items():
            _print_value(f"{name}: {part.replace('_', ' ')}", nested)
    elif isinstance(value, (list, tuple)) and value:
        print(f"{name:34} {one_line(', '.join(map(str, value)))}")
    elif value not in (None, "", [], ()):
        print(f"{name:34} {one_line(value)}")


COMMAND = Command(
    name="inspect", help="print an engine's manifest and check its files", add_arguments=add_arguments, run=run
)
