"""A cache of exported graphs: PyTorch's exporter takes half a minute and returns the same graphs every time.

Entries are files in the folder ``graphs`` of the user's cache folder (``LSMS_RT_CACHE``; empty disables the cache).
They hold the weights, so the folder is readable by the user only.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lsms_rt
from lsms_rt.atomic import atomic_file
from lsms_rt.digest import sha256, sha256_of_file, sha256_of_json
from lsms_rt.errors import LsmsError, raised_from
from lsms_rt.machine.cache import cache_folder, make_private_folder, open_private
from lsms_rt.model import LSMS

# All entries together; the least recently used ones are removed.  A base model with BERT-base has 0.6 GB.
MAX_BYTES = 4 << 30
LIBRARIES = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript")
# Whose source decides what a graph looks like.
SOURCES = ("model", "kernels", "export")
log = logging.getLogger("lsms_rt")

Graphs = dict[str, bytes]


def cached_graphs(model: LSMS, export: Callable[[], Graphs]) -> Graphs:
    """Return the files that ``export()`` makes of ``model``, from the cache if it holds them."""
    base = cache_folder()
    if base is None:
        return export()
    path = base / "graphs" / graph_key(model)
    graphs = _read(path)
    if graphs is None:
        graphs = export()
        _write(path, graphs)
    return graphs


def graph_key(model: LSMS) -> str:
    """Return the digest of everything that decides a model's graphs.

    These are its weights, their type, its sizes and kernels, the source of the modules that take part, and the versions
    of the libraries.
    """
    facts = [lsms_rt.__version__, sys.version, model.kernels, model.config.to_dict(), [*map(_version, LIBRARIES)]]
    root = Path(lsms_rt.__file__).parent
    files = sorted(path for name in SOURCES for path in (root / name).rglob("*.py"))
    sources = [(str(path.relative_to(root)), sha256_of_file(path)) for path in files]
    weights = [
        (name, str(tensor.dtype), tuple(tensor.shape), sha256(tensor.detach().cpu().contiguous().numpy().tobytes()))
        for name, tensor in sorted(model.state_dict().items())
    ]
    return sha256_of_json([facts, sources, weights])


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _read(path: Path) -> Graphs | None:
    """Return the files of an entry; None if there is none, or if it is not this user's or its digests are wrong."""
    try:
        with open_private(path) as file:
            first, _, rest = file.read().partition(b"\n")
    except OSError:
        return None
    graphs: Graphs = {}
    try:
        for name, (size, digest) in json.loads(first).items():
            graphs[name], rest = rest[:size], rest[size:]
            if sha256(graphs[name]) != digest:
                raise ValueError(f"{name} has changed")
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("an entry of the cache of exported graphs is damaged (%s); it is made again", error)
        return None
    # For ``_evict``: the time of the last use.
    with suppress(OSError):
        os.utime(path)
    log.info("exported graphs are from the cache: %s", path)
    return graphs


def _write(path: Path, graphs: Graphs) -> None:
    """Write an entry atomically.  A folder that cannot be written only costs the next build its time."""
    header = {name: (len(data), sha256(data)) for name, data in graphs.items()}
    try:
        make_private_folder(path.parent)
        with atomic_file(path) as part, part.open("wb") as file:
            os.chmod(part, 0o600)
            file.write(json.dumps(header).encode() + b"\n")
            file.writelines(graphs.values())
        _evict(path.parent)
    except (LsmsError, OSError) as error:
        log.warning("the exported graphs are not cached: %s", _reason(raised_from(error) or error))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _evict(folder: Path) -> None:
    """Remove the least recently used entries until the rest fits into ``MAX_BYTES``."""
    entries = [(path.stat(), path) for path in folder.iterdir()]
    total = sum(stat.st_size for stat, _ in entries)
    for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
        if total <= MAX_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
