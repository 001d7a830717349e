"""Evaluate a candidate set of INT8 layers: an fp32 engine is changed in memory, opened, and asked questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import lsms_rt
from lsms_rt.datasets.questions import Answer, Question, ask
from lsms_rt.digest import sha256
from lsms_rt.engine.backend import Backend, OneByOne, SentenceFeatures
from lsms_rt.engine.graph_backend import Run as GraphRun
from lsms_rt.engine.manifest import REBUILD, EngineDirectory, open_directory
from lsms_rt.engine.onnxruntime import OnnxRuntimeBackend
from lsms_rt.engine.registry import find_backend
from lsms_rt.errors import EngineInvalidError
from lsms_rt.export.graph.layers import DenseLayer, dense_layers, dense_macs, read_graph
from lsms_rt.export.graph.qdq import quantize
from lsms_rt.segmenter import Segmenter
from lsms_rt.sentences import open_reader

from .recipe import GRAPHS, Ranges

# The inputs of one run of a graph, by name.
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Run:
    """One question, as a candidate answered it.

    Attributes:
        answer: the answer.
        feeds: graph name -> the inputs of its run; no "text" if the sentence is still encoded from before.
        logits: float32 (1, S, S).
    """

    answer: Answer
    feeds: dict[str, Feeds] = field(repr=False)
    logits: np.ndarray = field(repr=False)


def open_candidates(engine: Path, threads: int | None = None, digest: str | None = None) -> Candidates:
    """Open an fp32 engine of ONNX Runtime for calibration.

    Args:
        engine: the engine directory.
        threads: CPU threads for one slice; None for the default.
        digest: "sha256:HEX" of the engine from a trusted source; another engine is rejected.  None: no check.

    Raises:
        EngineInvalidError: the engine is not an fp32 engine of ONNX Runtime with stock operations and named layers.
    """
    directory = open_directory(engine, digest)
    manifest = directory.manifest
    plans = find_backend(manifest.backend, str(engine)).builds_plans
    if plans or (manifest.precision, manifest.kernels) != ("fp32", "stock"):
        raise EngineInvalidError(
            f"{engine} is an engine for {manifest.backend} in {manifest.precision} with {manifest.kernels} operations; "
            "calibrate a checkpoint, or an engine built with --backend onnxruntime --precision fp32"
        )
    candidates = Candidates(directory, threads)
    first = candidates.layers["image"][0].name
    if first.startswith("node_"):
        raise EngineInvalidError(
            f"{engine} has layers without names (its first layer is {first!r}), which a recipe needs; {REBUILD}"
        )
    return candidates


class Candidates:
    """An fp32 engine of ONNX Runtime whose layers can be made INT8 in memory.

    Attributes:
        engine: the engine directory.
        threads: CPU threads for one slice; None for the default.
        graphs: graph name ("text", "image") -> the graph.
        layers: graph name -> its dense layers, in the graph's order.
        total_macs: multiply-accumulates of one slice and one sentence in all dense operations.
    """

    def __init__(self, engine: EngineDirectory, threads: int | None = None) -> None:
        self.engine, self.threads = engine, threads
        self.graphs: dict[str, onnx.ModelProto] = {name: read_graph(engine.read(f"{name}.onnx")) for name in GRAPHS}
        self.layers: dict[str, list[DenseLayer]] = {name: dense_layers(graph) for name, graph in self.graphs.items()}
        self.total_macs = sum(dense_macs(graph) for graph in self.graphs.values())
        self._reader = open_reader(engine)
        # Opened once: most candidates change one graph of the two, and to open the other takes longer than to ask it.
        self._unchanged: dict[str, GraphRun] = {}

    def run(
        self, ranges: Ranges, asked: Iterable[Question], title: str | None = None, count: int | None = None
    ) -> Iterator[Run]:
        """Ask questions one by one, with the layers named in ``ranges`` in INT8.

        Args:
            ranges: the INT8 layers and their ranges; empty for the unchanged engine.
            asked: the questions.
            title: title of a progress bar; None for no bar.
            count: number of questions, for the bar.

        Yields:
            the run of every question.
        """
        backend = _Recorder(self._backend(ranges))
        with self._segmenter(backend) as segmenter:
            for _, answer, _ in ask(segmenter, asked, title=title, count=count):
                yield Run(answer, backend.feeds, backend.logits)
                backend.feeds = {}

    def open(self, ranges: Ranges) -> Segmenter:
        """Open a Segmenter on the CPU with the layers named in ``ranges`` in INT8."""
        return self._segmenter(self._backend(ranges))

    def graphs_with(self, ranges: Ranges) -> dict[str, bytes]:
        """Return graph name -> serialized graph, with the layers named in ``ranges`` in INT8."""
        return {name: self._with_int8(name, ranges.get(name, {})) for name in self.graphs}

    def cache_key(self, *parts: Any) -> str:
        """Return a digest of what a cached measurement depends on: ``parts``, the engine and the library versions."""
        from onnxruntime import __version__ as version

        # The engine's digest is that of its manifest, which holds the digests of the graphs.
        return sha256(json.dumps([self.engine.digest, version, lsms_rt.__version__, parts], sort_keys=True).encode())

    def _backend(self, ranges: Ranges) -> OnnxRuntimeBackend:
        changed = {f"{name}.onnx": self._with_int8(name, layers) for name, layers in ranges.items() if layers}
        engine = _ChangedEngine(self.engine.path, self.engine.manifest, self.engine.digest, changed=changed)
        backend = OnnxRuntimeBackend(
            engine, self.threads, "cpu", shared={k: v for k, v in self._unchanged.items() if k not in changed}
        )
        self._unchanged |= {name: graph for name, graph in backend.graphs.items() if name not in changed}
        return backend

    def _segmenter(self, backend: Backend) -> Segmenter:
        # Sentences of a data set are all asked.
        return Segmenter.from_reader(backend, self.engine.manifest, self._reader, on_unknown="warn")

    def _with_int8(self, name: str, ranges: Mapping[str, float]) -> bytes:
        graph = onnx.ModelProto()
        graph.CopyFrom(self.graphs[name])
        quantize(graph, ranges)
        data: bytes = graph.SerializeToString()
        return data


@dataclass(frozen=True)
class _ChangedEngine(EngineDirectory):
    """An engine directory with some files replaced in memory; the manifest does not describe those."""

    changed: dict[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        return self.changed[name] if name in self.changed else super().read(name)


class _Recorder(OneByOne):
    """A backend that keeps the inputs of its graphs and the logits of the last slice."""

    def __init__(self, backend: OnnxRuntimeBackend) -> None:
        self.backend, self.version = backend, backend.version
        self.feeds: dict[str, Feeds] = {}

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        self.feeds["text"] = {"tokens": tokens, "mask": mask}
        return self.backend.encode_text(tokens, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        self.feeds["image"] = {"image": images, "mask": text.mask, **text.arrays}
        self.logits = self.backend.segment(images, text)
        return self.logits

    def close(self) -> None:
        self.backend.close()
