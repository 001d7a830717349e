"""An engine with other graphs, opened from memory: what a search tries, dozens of times."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lsms_rt.engine.backend import OneByOne, SentenceFeatures
from lsms_rt.engine.manifest import EngineDirectory
from lsms_rt.engine.onnxruntime import OnnxRuntimeBackend
from lsms_rt.segmenter import Segmenter
from lsms_rt.tokenizer import Tokenizer


@dataclass(frozen=True)
class MemoryEngine(EngineDirectory):
    """An engine directory of which some files are in memory and not what the manifest says."""

    changed: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        return self.changed[name] if name in self.changed else super().read(name)


class Listening(OneByOne):
    """A backend that keeps, where ``keep``, what its graphs are given: ``heard`` maps a graph to pairs of its inputs
    and, of the image graph, the logits."""

    def __init__(self, backend: OnnxRuntimeBackend, keep: bool) -> None:
        self.backend, self.version, self.keep = backend, backend.version, keep
        self.heard: dict[str, list[tuple[dict[str, np.ndarray], np.ndarray | None]]] = {"text": [], "image": []}

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        if self.keep:
            self.heard["text"].append(({"tokens": tokens, "mask": mask}, None))
        return self.backend.encode_text(tokens, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        logits = self.backend.segment(images, text)
        if self.keep:
            self.heard["image"].append(({"image": images, "mask": text.mask, **text.arrays}, logits))
        return logits

    def close(self) -> None:
        self.backend.close()


def open_variant(
    engine: EngineDirectory, changed: dict[str, bytes], threads: int | None = None, keep: bool = False
) -> tuple[Segmenter, Listening]:
    """A Segmenter over ``engine`` with the files ``changed``, on the CPU, and the backend that listens to it."""
    memory = MemoryEngine(engine.path, engine.manifest, engine.digest, changed)
    backend = Listening(OnnxRuntimeBackend(memory, threads, "cpu"), keep)
    tokenizer = Tokenizer(engine.read("tokenizer.json"), engine.manifest.max_tokens)
    return Segmenter.from_backend(backend, engine.manifest, tokenizer), backend
