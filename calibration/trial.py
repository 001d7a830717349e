"""An engine with some layers in INT8, asked questions: the one experiment of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from lsms_rt.datasets.questions import Answer, Question, ask, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.engine.manifest import EngineDirectory
from lsms_rt.export.graph.layers import read_graph
from lsms_rt.export.graph.qdq import quantize
from lsms_rt.segmenter import Segmenter

from .ranges import Feeds
from .units import GRAPHS
from .variant import Listening, open_variant

Layers = Mapping[str, Mapping[str, float]]


class Trials:
    """An fp32 engine of ONNX Runtime, whose layers are made INT8 in memory.  ``threads`` of a slice's computation."""

    def __init__(self, engine: EngineDirectory, threads: int | None = None) -> None:
        self.engine, self.threads = engine, threads
        self.graphs: dict[str, onnx.ModelProto] = {name: read_graph(engine.read(f"{name}.onnx")) for name in GRAPHS}

    def answers(self, layers: Layers, rows: list[Annotation], title: str) -> list[Answer]:
        """What the engine says with ``layers`` in INT8: graph -> layer -> range of its input."""
        with self.open(layers)[0] as segmenter:
            return [answer for _, answer, _ in ask(segmenter, questions(rows), title=title, count=len(rows))]

    def logits(self, layers: Layers, asked: list[Question]) -> tuple[list[Answer], list[np.ndarray]]:
        """The same of a few questions, and the logits (1, S, S) of every answer."""
        segmenter, backend = self.open(layers, keep=True)
        with segmenter:
            answers = [answer for _, answer, _ in ask(segmenter, asked, title=None)]
        return answers, [logits for _, logits in backend.heard["image"] if logits is not None]

    def feeds(self, rows: list[Annotation], graph: str) -> Iterator[Feeds]:
        """The inputs that ``graph`` gets when these rows are asked, one after another, as ONNX Runtime takes them."""
        segmenter, backend = self.open({}, keep=True)
        with segmenter:
            for _ in ask(segmenter, questions(rows), title=None):
                for feeds, _ in backend.heard[graph]:
                    yield feeds
                for heard in backend.heard.values():
                    heard.clear()

    def open(self, layers: Layers, keep: bool = False) -> tuple[Segmenter, Listening]:
        """A Segmenter with ``layers`` in INT8, and the backend that listens to it."""
        changed = {f"{name}.onnx": self._with_int8(name, ranges) for name, ranges in layers.items() if ranges}
        return open_variant(self.engine, changed, self.threads, keep)

    def graphs_with(self, layers: Layers) -> dict[str, bytes]:
        """Graph -> its bytes with ``layers`` in INT8."""
        return {name: self._with_int8(name, layers.get(name, {})) for name in self.graphs}

    def _with_int8(self, name: str, ranges: Mapping[str, float]) -> bytes:
        graph = onnx.ModelProto()
        graph.CopyFrom(self.graphs[name])
        quantize(graph, ranges)
        data: bytes = graph.SerializeToString()
        return data
