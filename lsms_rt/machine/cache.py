"""The folder for files that can be computed again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Environment variable: the folder to use instead; empty for none.
CACHE = "LSMS_RT_CACHE"


def cache_folder() -> Path | None:
    """Return the user's cache folder of this package, by the platform's convention; None if caching is disabled.

    The folder may not exist yet.
    """
    configured = os.environ.get(CACHE)
    if configured is not None:
        return Path(configured) if configured else None
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "lsms-rt"
