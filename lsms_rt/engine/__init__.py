"""Engines: the directory, its manifest, and one file per backend."""

from .backend import Backend, SentenceFeatures, open_backend
from .manifest import EngineDirectory, Manifest, open_directory

__all__ = ["Backend", "EngineDirectory", "Manifest", "SentenceFeatures", "open_backend", "open_directory"]
