"""Whether the libraries of a command are installed, asked before anything is imported or read."""

from __future__ import annotations

import importlib.util

from lsms_rt.errors import MissingDependencyError


def check_libraries(command: str, libraries: tuple[str, ...], extras: str) -> None:
    """Raise MissingDependencyError unless the modules of a command are installed, which ``extras`` install."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"{command} needs {', '.join(missing)}; pip install 'lsms-rt[{extras}]'")
