"""Other compilers than the installed Triton's: ``python -m lsms_rt.kernels.toolchains`` installs them (270 MB), once.

Triton 3.6.0 is what PyTorch 2.11 brings; the newest ptxas stands for what a new driver makes of a plugin's PTX.  They
go into a folder of the user's cache, or LSMS_RT_TOOLCHAINS; nothing in the environment changes.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Name -> the requirement, pinned: a release changes registers and spills.
REQUIREMENTS = {"triton": "triton==3.6.0", "nvcc": "nvidia-cuda-nvcc==13.5.37"}


def folder(name: str) -> Path:
    """Return where a toolchain is or would be, one of REQUIREMENTS; with PYTHONPATH, Python finds it there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsms-rt" / "toolchains"
    return Path(os.environ.get("LSMS_RT_TOOLCHAINS") or cache) / REQUIREMENTS[name].replace("==", "-")


def is_installed(name: str) -> bool:
    """Return whether a toolchain is there, and whole."""
    return (folder(name) / "done").exists()


def install(name: str) -> Path:
    """Install a toolchain unless it is there, and return its folder; raises CalledProcessError if pip fails."""
    target = folder(name)
    if not is_installed(name):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--no-compile", "--upgrade", "--target", str(target), REQUIREMENTS[name]], check=True)
        (target / "done").touch()
    return target


def assemblers() -> dict[str, Path]:
    """Return all ptxas that are there, by version: those of the Triton that Python finds, and of the toolchains."""
    paths = [tools / name for tools in _triton_tools() for name in ("ptxas", "ptxas-blackwell")]
    paths += [folder("nvcc") / "nvidia/cu13/bin/ptxas"] if is_installed("nvcc") else []
    return {version(path): path for path in paths if path.exists()}


@functools.cache
def disassembler() -> Path | None:
    """Return nvdisasm of the Triton that Python finds, or else of the toolchains'; None if there is none."""
    paths = (tools / "nvdisasm" for tools in _triton_tools())
    return next((path for path in paths if path.exists()), None)


def _triton_tools() -> list[Path]:
    """Return the folders of the tools of all Tritons that are there."""
    triton = importlib.util.find_spec("triton")
    roots = [Path(triton.origin).parent] if triton is not None and triton.origin else []
    roots += [folder("triton") / "triton"] if is_installed("triton") else []
    return [root / "backends/nvidia/bin" for root in roots]


@functools.cache
def version(ptxas: Path) -> str:
    """Return an assembler's version, e.g. ``ptxas 13.5``."""
    text = subprocess.run([str(ptxas), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", text)
    return f"ptxas {found.group(1) if found else '?'}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", choices=list(REQUIREMENTS), help="print a toolchain's folder, and install nothing")
    options = parser.parse_args(argv)
    if options.print:
        print(folder(options.print))
        return
    for name in REQUIREMENTS:
        print(install(name))
    print(*assemblers(), sep=", ")


if __name__ == "__main__":
    main()
