"""The provenance of a measurement, which every record states beside its figures."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.machine.cpu import cpu_count, find


def provenance(*packages: str, gpu: str | None = None) -> dict[str, Any]:
    """Return device, versions, commit and date in plain types.

    Args:
        packages: Distributions to list beside lsms-rt; those that are not installed are omitted.
        gpu: Name of the GPU, if one was measured.
    """
    cpu = find()
    return {
        "device": {
            "processor": f"{cpu.name}, {_cores()}",
            "instructions": list(cpu.instructions or ()),
            "system": platform.platform(),
            "gpu": gpu,
        },
        "versions": {"lsms-rt": lsms_rt.__version__} | versions(packages),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _cores() -> str:
    """Return the number of the machine's cores, and of those that this process may use where it may not use all."""
    usable, total = cpu_count(), os.cpu_count()
    return f"{total} cores" if usable == total else f"{usable} of {total} cores"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of ``packages`` that are installed."""
    return {package: found for package in packages if (found := _version(package)) is not None}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit of the clone that holds this file, or "unknown" for an installed package."""
    home = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, check=False)
        except OSError:
            # Git is not installed.
            return ""
        return done.stdout.strip()

    if not git("ls-files", "bench/provenance.py"):
        return "unknown"
    # Files that measurements write are not code.
    code = ("--", ".", ":!lsms_rt/data", ":!bench/results", ":!docs", ":!README.md")
    changed = git("status", "--porcelain", "-uno", *code)
    return git("rev-parse", "--short", "HEAD") + (" with local changes" if changed else "")
