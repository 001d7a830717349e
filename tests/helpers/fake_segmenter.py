"""A Segmenter without an engine's graphs: the left or the right half of a picture, or nothing, by the sentence."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.data import demo_engine
from lsms_rt.engine.backend import OneByOne, SentenceFeatures
from lsms_rt.engine.manifest import open_directory
from lsms_rt.errors import EngineInvalidError
from lsms_rt.runs.jobs import jobs_of
from lsms_rt.runs.report import Report
from lsms_rt.runs.request import Request
from lsms_rt.runs.run import run
from lsms_rt.segmenter import Segmenter
from lsms_rt.tokenizer import Tokenizer

LEFT, RIGHT = "the lesion in the left lobe of the liver", "the lesion in the right lobe of the liver"


class Halves(OneByOne):
    """Finds the bright pixels of one half; fails for a slice with a pixel that is ``broken``, in the model's range."""

    version = "1.0"

    def __init__(self, seconds: float = 0.0, broken: float | None = None) -> None:
        self.seconds, self.broken, self.calls = seconds, broken, 0
        self.sizes: list[int] = []

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        return SentenceFeatures({"tokens": tokens}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        self.calls += 1
        self.sizes.append(len(images))
        time.sleep(self.seconds)
        if self.broken is not None and (images.mean(axis=(1, 2, 3)) > self.broken).any():
            raise EngineInvalidError("the engine returned NaN; build it again")
        logits = np.where(images[:, 0] > 0, 20.0, -20.0).astype(np.float32)
        half = logits.shape[-1] // 2
        sentences = text.arrays["tokens"].sum(axis=1) % 2
        for n, of_image in enumerate(logits):
            other = slice(half) if sentences[n % len(text)] else slice(half, None)
            of_image[:, other] = -20.0
        return logits

    def close(self) -> None:
        pass


# Opened once, also for processes that are forked.
_DEMO = open_directory(demo_engine())
_TOKENIZER = Tokenizer(_DEMO.read("tokenizer.json"), _DEMO.manifest.max_tokens)
_MANIFEST = replace(_DEMO.manifest, image_size=64, crop="none", max_batch=2, confidence=0.5, threshold=0.5)


def fake_segmenter(max_batch: int = 2, **options: Any) -> Segmenter:
    manifest = replace(_MANIFEST, max_batch=max_batch)
    segmenter = Segmenter.from_backend(Halves(**options), manifest, _TOKENIZER)
    segmenter.digest = "sha256:" + "0" * 64
    return segmenter


def fake_run(inputs: list[Path], text: str | list[str] = LEFT, output: Path | None = None, **options: Any) -> Report:
    """Run predict on the fake engine; ``options`` of the request, or of ``Halves``."""
    own = {name: options.pop(name) for name in ("seconds", "broken") if name in options}
    texts = [text] if isinstance(text, str) else text
    request = Request(output=output, **options)
    return run(fake_segmenter(**own), jobs_of(inputs, texts), request)


def write_arrays(folder: Path, count: int) -> list[Path]:
    """Slices with a bright, odd shape in both halves, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(count):
        hu = np.full((64, 64), -1000, np.int16)
        hu[10 : 20 + n, 8:56] = 200
        paths.append(folder / f"{n}.npy")
        np.save(paths[-1], hu)
    return paths
