"""Operations that are counted of a profile, against the network's own layers; and how a profile is summed up."""

from __future__ import annotations

from pathlib import Path

from lsms_rt.bench.scaling.operators import flops_of, kind_of, profile, sum_up
from lsms_rt.export.graph.layers import dense_macs, read_graph


def test_kinds_and_operations() -> None:
    conv = [(1, 8, 4, 4), (16, 8, 3, 3), (16,)]
    assert kind_of("Conv", conv) == "dense convolution"
    assert flops_of("Conv", conv, [(1, 16, 4, 4)]) == 2 * 16 * 16 * 8 * 9
    depthwise = [(1, 8, 4, 4), (8, 1, 1, 7)]
    assert kind_of("Conv", depthwise) == "depthwise convolution"
    assert flops_of("Conv", depthwise, [(1, 8, 4, 4)]) == 2 * 8 * 16 * 7
    assert kind_of("FusedConv", [(1, 8, 4, 4), (16, 8, 1, 1)]) == "1x1 convolution"
    assert flops_of("MatMul", [(2, 5, 7), (7, 3)], [(2, 5, 3)]) == 2 * 2 * 5 * 3 * 7
    # The first operand is transposed.
    assert flops_of("FusedMatMul", [(2, 7, 5), (2, 7, 3)], [(2, 5, 3)]) == 2 * 2 * 5 * 3 * 7
    assert kind_of("Erf", [(1,)]) == "sums, norms, other" and flops_of("Erf", [(1,)], [(1,)]) == 0


def test_warm_up_is_not_counted() -> None:
    shapes = [{"float": [1, 2]}]
    arguments = {"node_index": "3", "op_name": "Gelu", "input_type_shape": shapes, "output_type_shape": shapes}
    events = [{"cat": "Node", "name": "x_kernel_time", "dur": ms * 1000, "args": arguments} for ms in (99, 5, 1, 3)]
    (row,) = sum_up([*events, {"cat": "Session", "name": "model_run"}], 3)
    assert (row.kind, row.count, row.ms, row.bytes) == ("GELU", 1, 3.0, 16.0)


def test_operations_of_a_real_graph_are_those_of_its_layers(demo_engine: Path) -> None:
    """export.graph.layers counts the dense layers; attention and depthwise convolutions come on top."""
    graph = demo_engine / "image.onnx"
    rows = {row.kind: row for row in profile(graph, runs=1)}
    counted = sum(row.flops for row in rows.values())
    dense = 2 * dense_macs(read_graph(graph.read_bytes()))
    assert dense < counted < 1.5 * dense
    layers = ("1x1 convolution", "dense convolution", "matrix product")
    assert dense <= sum(rows[kind].flops for kind in layers) < counted
    assert all(row.ms > 0 and row.bytes > 0 for row in rows.values())
