"""Split MLPs by channels to fit CPU caches, and merge them back.

A block's MLP widens its map eightfold (1x1, depthwise 3x3, GELU) before it narrows it: 16 MB at stride 4 of a 512x512
slice, written and read again three times.  The channels are independent up to the narrowing 1x1, which adds them up; to
compute a part of the channels at a time gives the same sum, and the part stays in the cache.  A GPU needs the whole
layers: ``join`` restores them by the names that ``split`` gave the parts.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Maximum size of a part of the widened map; half of it, or twice as much, measured the same to a few per cent.
PART_BYTES = 4 << 20
# Floats of a vector register, by which ONNX Runtime blocks channels.
LANES = 16
_PART = re.compile(r"(.+)\.part(\d+)$")
Shapes = dict[str, tuple[int, ...]]


def split(model: onnx.ModelProto, shapes: Shapes) -> int:
    """Split every MLP whose widened map has more than ``PART_BYTES``, in place.

    Args:
        model: a graph with weights as float32 initializers, and layers named by their modules.
        shapes: the shapes of its tensors for one slice, from ``layers.shapes_of``.

    Returns:
        the number of MLPs that were split.
    """
    graph = _Graph(model)
    count = 0
    for expand in [node for node in model.graph.node if node.name.endswith(".mlp.expand")]:
        chain = graph.mlp(expand)
        hidden = shapes[expand.output[0]]
        parts = _parts(hidden[1], 4 * int(np.prod(hidden)))
        if chain is not None and parts > 1:
            graph.replace([chain], _in_parts(graph, chain, parts))
            count += 1
    graph.write()
    return count


def join(model: onnx.ModelProto) -> None:
    """Undo :func:`split`, in place; a graph without parts is not changed."""
    graph = _Graph(model)
    chains: dict[str, list[list[onnx.NodeProto]]] = {}
    for node in model.graph.node:
        match = _PART.match(node.name)
        if match and match[1].endswith(".mlp.expand"):
            chain = graph.mlp(node)
            assert chain is not None, node.name
            chains.setdefault(match[1], []).append(chain)
    for parts in chains.values():
        graph.replace(parts, _whole(graph, parts))
    graph.write()


def _parts(channels: int, size: int) -> int:
    """Return the smallest number of parts that are whole vectors and small enough; 1 if there is none."""
    counts = (n for n in range(1, channels // LANES + 1) if channels % (n * LANES) == 0 and size / n <= PART_BYTES)
    return next(counts, 1)


def _in_parts(graph: _Graph, chain: list[onnx.NodeProto], parts: int) -> list[onnx.NodeProto]:
    expand, depthwise, gelu, reduce = chain
    nodes: list[onnx.NodeProto] = []
    total = ""
    for index in range(parts):

        def name(text: str, index: int = index) -> str:
            return f"{text}.part{index}"

        def cut(tensor: str, axis: int, index: int = index) -> str:
            value = np.split(graph.values(tensor), parts, axis)[index]
            return graph.constant(f"{tensor}.part{index}", value)

        weights = {
            expand.name: [cut(expand.input[1], 0), cut(expand.input[2], 0)],
            depthwise.name: [cut(depthwise.input[1], 0), cut(depthwise.input[2], 0)],
            gelu.name: [],
            # The bias is added once.
            reduce.name: [cut(reduce.input[1], 1), *([reduce.input[2]] if index == 0 else [])],
        }
        source = expand.input[0]
        for node in chain:
            part = onnx.NodeProto()
            part.CopyFrom(node)
            part.name = name(node.name or node.output[0])
            del part.input[:], part.output[:]
            part.input.extend([source, *weights[node.name]])
            source = name(node.output[0])
            part.output.append(source)
            for attribute in part.attribute:
                if attribute.name == "group" and node is depthwise:
                    attribute.i = len(graph.values(depthwise.input[1])) // parts
            nodes.append(part)
        if total:
            result = reduce.output[0] if index == parts - 1 else name(f"{reduce.output[0]}.sum")
            nodes.append(helper.make_node("Add", [total, source], [result], name=name(f"{reduce.name}.sum")))
            source = result
        total = source
    return nodes


def _whole(graph: _Graph, parts: list[list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    merged: list[onnx.NodeProto] = []
    source = parts[0][0].input[0]
    for step, axis in enumerate((0, 0, None, 1)):
        nodes = [chain[step] for chain in parts]
        whole = onnx.NodeProto()
        whole.CopyFrom(nodes[0])
        whole.name = _stem(nodes[0].name)
        del whole.input[:], whole.output[:]
        whole.input.append(source)
        if axis is not None:
            weights = [graph.values(node.input[1]) for node in nodes]
            whole.input.append(graph.constant(_stem(nodes[0].input[1]), np.concatenate(weights, axis)))
        if axis == 0:
            biases = [graph.values(node.input[2]) for node in nodes]
            whole.input.append(graph.constant(_stem(nodes[0].input[2]), np.concatenate(biases)))
        if axis == 1:
            whole.input.append(nodes[0].input[2])
        for attribute in whole.attribute:
            if attribute.name == "group" and step == 1:
                attribute.i *= len(parts)
        source = _stem(nodes[0].output[0])
        whole.output.append(source)
        merged.append(whole)
    return merged


def _stem(name: str) -> str:
    match = _PART.match(name)
    assert match is not None, name
    return match[1]


class _Graph:
    """The nodes and constants of a graph that is being changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        # First output of a node -> the nodes that replace it.
        self._replacements: dict[str, list[onnx.NodeProto]] = {}
        # First outputs of nodes to remove.
        self._removed: set[str] = set()

    def mlp(self, expand: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Return expand, depthwise, GELU and reduce; None if the graph differs, or one of them is INT8."""
        chain = [expand]
        for kind in ("Conv", "Gelu", "Conv"):
            users = self.users.get(chain[-1].output[0], [])
            if len(users) != 1 or users[0].op_type != kind:
                return None
            chain.append(users[0])
        plain = all(name in self.constants for node in chain for name in node.input[1:])
        return chain if plain else None

    def values(self, name: str) -> np.ndarray:
        value: np.ndarray = numpy_helper.to_array(self.constants[name])
        return value

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def replace(self, parts: list[list[onnx.NodeProto]], nodes: list[onnx.NodeProto]) -> None:
        """Put ``nodes`` in place of the last of the ``parts``, or of their sums, with the same output."""
        last = parts[0][-1].output[0]
        for chain in parts[1:]:
            (add,) = self.users[chain[-1].output[0]]
            last = add.output[0]
            self._removed.add(last)
        for chain in parts:
            self._removed |= {node.output[0] for node in chain}
        nodes[-1].output[0] = last
        self._replacements[last] = nodes

    def write(self) -> None:
        """Write the changed nodes, and the constants that are used, into the graph."""
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            key = node.output[0]
            nodes += self._replacements.get(key, [] if key in self._removed else [node])
        used = {name for node in nodes for name in node.input}
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)
