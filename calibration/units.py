"""What a search decides about as one: a dense layer, or all of a block's half, in the text or the image graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from lsms_rt.export.graph.layers import DenseLayer, by_name, dense_layers

GRAPHS = ("text", "image")
Ranges = dict[str, dict[str, float]]  # graph -> layer -> largest magnitude of its input


@dataclass(frozen=True)
class Unit:
    """``layers`` of ``graph``; ``macs`` of one slice (text: one sentence) in all of them."""

    graph: str
    name: str
    layers: tuple[DenseLayer, ...]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def key(self) -> str:
        return f"{self.graph}:{self.name}"

    def of(self, ranges: Ranges) -> dict[str, float]:
        """The ranges of this unit's layers."""
        return {layer.name: ranges[self.graph][layer.name] for layer in self.layers}


def units_of(graphs: Mapping[str, onnx.ModelProto], by: str) -> list[Unit]:
    """All units of both graphs, in their order."""
    found = []
    for graph in GRAPHS:
        groups: dict[str, list[DenseLayer]] = {}
        for name, layer in by_name(dense_layers(graphs[graph])):
            groups.setdefault(name if by == "layer" else group_of(name), []).append(layer)
        found += [Unit(graph, name, tuple(layers)) for name, layers in groups.items()]
    return found


def group_of(layer: str) -> str:
    """``encoder.stages.0.blocks.1.mlp.expand`` -> ``encoder.stages.0.blocks.1.mlp``; a part of the decoder, a layer of
    BERT, or all products that only a number tells apart, likewise."""
    parts = layer.split(".")
    if parts[0] == "encoder":
        return ".".join(parts[: 6 if "blocks" in parts else 4])
    if parts[0] == "text_encoder":
        return ".".join(parts[:5])
    return ".".join(parts[:2]) if len(parts) > 1 else parts[0].rstrip("0123456789_")


def merged(chosen: list[Unit], ranges: Mapping[str, dict[str, float]]) -> Ranges:
    """The ranges of all layers of the ``chosen`` units; ``ranges`` are by the unit's key."""
    layers: Ranges = {graph: {} for graph in GRAPHS}
    for unit in chosen:
        layers[unit.graph] |= ranges[unit.key]
    return layers
