"""PyTorch's exporter, without what it does again and again."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


@contextmanager
def without_repeats() -> Iterator[None]:
    """Prepare the exporter when it is called first, which imports a lot; the same graphs come out."""
    export = torch.onnx.export
    with pytest.MonkeyPatch.context() as patch:
        prepare = functools.cache(lambda: (operators_read_once(patch), slices_matched_only(patch)))

        @functools.wraps(export)
        def prepared(*args: Any, **options: Any) -> Any:
            prepare()
            return export(*args, **options)

        patch.setattr(torch.onnx, "export", prepared)
        yield


def operators_read_once(patch: pytest.MonkeyPatch) -> None:
    """Make the table of all operators' translations once, which takes 0.3 s; every export gets a copy."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = functools.cache(ONNXRegistry.from_torchlib)

    def copied(_: object = None, opset_version: int | None = None) -> ONNXRegistry:
        made, copy = make(opset_version), ONNXRegistry()
        copy._opset_version = made._opset_version
        copy.functions = {target: list(functions) for target, functions in made.functions.items()}
        return copy

    patch.setattr(ONNXRegistry, "from_torchlib", copied)


def slices_matched_only(patch: pytest.MonkeyPatch) -> None:
    """Try a rule for several nodes only where the first one is of its kind.

    The optimizer lists the whole graph at every node before it looks at that, for 1 s of an image graph.
    """
    from onnxscript.rewriter._basics import MatchResult
    from onnxscript.rewriter._matcher import SimplePatternMatcher

    match = SimplePatternMatcher.match

    @functools.wraps(match)
    def tried(self: SimplePatternMatcher, model: Any, graph: Any, node: Any, **options: Any) -> MatchResult:
        if not self.pattern.has_single_output_node:
            kind = self.pattern.output_nodes[0].op_identifier()
            if kind is not None and kind != node.op_identifier():
                return MatchResult().fail("the first node is of another kind")
        return match(self, model, graph, node, **options)

    patch.setattr(SimplePatternMatcher, "match", tried)
