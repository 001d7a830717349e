"""Engines: the engine directory, its manifest, and the backends that run it."""

from .backend import Backend, SentenceFeatures
from .manifest import EngineDirectory, Manifest, open_directory
from .registry import open_backend

__all__ = ["Backend", "EngineDirectory", "Manifest", "SentenceFeatures", "open_backend", "open_directory"]
