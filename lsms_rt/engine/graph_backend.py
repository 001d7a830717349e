"""What the libraries that run ONNX graphs have in common: the two graphs, their inputs, and how slices are spread."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from lsms_rt.errors import EngineInvalidError, brief

from .backend import FEATURES, TEXT_INPUTS, OneByOne, SentenceFeatures
from .manifest import EngineDirectory
from .process import Home
from .slice_pool import CLOSED, SlicePool

TEXT_GRAPH, IMAGE_GRAPH = "text.onnx", "image.onnx"
INPUTS = {TEXT_GRAPH: TEXT_INPUTS, IMAGE_GRAPH: ("image", "mask", *FEATURES)}
OUTPUTS = {TEXT_GRAPH: FEATURES, IMAGE_GRAPH: ("logits",)}
# What a user without the build side does.
BUILD = "pip install 'lsms-rt[build]'"
# Runs an opened graph: arrays by the names of its inputs -> the arrays of ``OUTPUTS``, in order.
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


class GraphBackend(OneByOne):
    """Runs an engine of two graphs that a library has opened.

    On a CPU one slice is computed by all threads, but several slices by one thread each, so threads never synchronize,
    and the data of a slice stays in a core's cache (measured on two cores: a tenth faster per slice, while a batch in
    one call is a tenth slower).

    Args:
        graphs: opened graph by its name; the image graph is for single slices.
        pool: computes the slices of a series; None: a batch is one call of the image graph.
    """

    def __init__(self, graphs: dict[str, Run], pool: SlicePool | None) -> None:
        self._home = Home(self)
        self._graphs, self._pool = graphs, pool

    @property
    def graphs(self) -> dict[str, Run]:
        """The opened graphs by name, for another backend to share; empty once this one is closed."""
        return dict(self._graphs)

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        outputs = self._opened(TEXT_GRAPH)({"tokens": tokens, "mask": mask})
        return SentenceFeatures(dict(zip(FEATURES, outputs, strict=True)), mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        if len(images) == 1 or self._pool is None:
            return _logits(self._opened(IMAGE_GRAPH), images, text)
        return next(self.segment_many([images], text))

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        if self._pool is None:
            return self._in_turn(batches, text)
        # raises if the engine has been closed
        self._opened(IMAGE_GRAPH)
        sentences = [_row(text, n) for n in range(len(text))]
        return self._pool.run(batches, lambda run, image, n: _logits(run, image, sentences[n % len(sentences)]))

    def _in_turn(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        rows = text
        for images in batches:
            # of the last size
            rows = rows if len(rows) == len(images) else text.repeated(len(images))
            yield self.segment(images, rows)

    def close(self) -> None:
        if not self._home.here:
            return
        self._graphs = {}
        if self._pool is not None:
            self._pool.close()

    def _opened(self, name: str) -> Run:
        self._home.check()
        run = self._graphs.get(name)
        if run is None:
            raise EngineInvalidError(CLOSED)
        return run


def can_build() -> bool:
    """Whether the packages are installed that make graphs of a checkpoint."""
    return all(importlib.util.find_spec(package) for package in ("torch", "onnx", "onnxscript", "transformers"))


def check_inputs(engine: EngineDirectory, name: str, shapes: Mapping[str, Sequence[object]]) -> None:
    """Compare the inputs of an opened graph with those that it must have, and their sizes with the manifest's.

    Args:
        engine: the engine.
        name: the graph's.
        shapes: the shape of every input; sizes that the graph does not fix are anything but integers.

    Raises:
        EngineInvalidError: they differ.
    """
    manifest = engine.manifest
    if set(shapes) != set(INPUTS[name]):
        raise EngineInvalidError(
            f"{engine.path / name} has inputs {brief(sorted(shapes), 200)}, not {', '.join(sorted(INPUTS[name]))}; "
            f"rebuild the engine: {manifest.rebuild}"
        )
    image, tokens = (manifest.channels, manifest.image_size, manifest.image_size), (manifest.max_tokens,)
    for key, expected in {"image": image, "tokens": tokens, "mask": tokens}.items():
        # After the batch.
        sizes = shapes.get(key, ("batch", *expected))[1:]
        fits = len(sizes) == len(expected) and all(
            size == wanted or not isinstance(size, int) for size, wanted in zip(sizes, expected, strict=True)
        )
        if not fits:
            raise EngineInvalidError(
                f"{engine.path / name}: input {key} has shape {brief(list(shapes[key]), 100)}, the manifest says "
                f"{('batch', *expected)}; rebuild the engine: {manifest.rebuild}"
            )


def _logits(run: Run, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
    rows = text.repeated(len(images))
    (logits,) = run(rows.arrays | {"mask": rows.mask, "image": images})
    if logits.ndim != 4:
        raise EngineInvalidError(f"{IMAGE_GRAPH} gives logits of {logits.ndim} dimensions, not 4; rebuild the engine")
    return logits[:, 0]


def _row(text: SentenceFeatures, n: int) -> SentenceFeatures:
    """Return the sentence that image ``n`` of a batch is asked for."""
    row = slice(n % len(text), n % len(text) + 1)
    return SentenceFeatures({name: array[row] for name, array in text.arrays.items()}, text.mask[row])
