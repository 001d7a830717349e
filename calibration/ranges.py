"""How far the inputs of dense layers reach: ONNX Runtime's calibrators, on a graph and examples of its inputs.

The result is one number a layer, the largest magnitude that INT8 shall tell apart.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lsms_rt.export.graph.layers import DenseLayer

from .options import METHODS

PERCENTILE = 99.99  # of the magnitudes: one value in ten thousand is clipped
BINS = {
    "percentile": 2048,
    "entropy": 512,
}  # entropy tries every threshold, in Python: four times the bins, 16 the time
ENTROPY_LEVELS = 128
Feeds = dict[str, np.ndarray]


def measure_ranges(
    model: onnx.ModelProto,
    layers: list[DenseLayer],
    feeds: Iterable[Feeds],
    method: str,
    seen: Callable[[], Any] = lambda: None,
) -> dict[str, float]:
    """Layer -> largest magnitude of its input, by ``method``, one of METHODS.  ``seen`` is called after every example.

    The same graph, examples and order give the same numbers.  A tensor that was zero everywhere gets 1: any will do.
    Raises ``ValueError`` for an unknown method, or where no example is given.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}; choose from {', '.join(METHODS)}")
    tensors = list(dict.fromkeys(layer.input for layer in layers))
    with tempfile.TemporaryDirectory() as folder:
        calibrator = _calibrator(method, Path(folder), model, tensors)
        given = False
        for example in feeds:
            given = True
            with contextlib.redirect_stdout(io.StringIO()):  # the library tells of every tensor
                calibrator.collect_data(_One(example))
            seen()
        if not given:
            raise ValueError("no examples to calibrate on")
        with contextlib.redirect_stdout(io.StringIO()):
            found = calibrator.compute_data()
    reach = {name: _reach(calibrator, found, name, method) for name in tensors}
    return {layer.name: reach[layer.input] or 1.0 for layer in layers}


def _reach(calibrator: Any, found: Any, tensor: str, method: str) -> float:
    """Largest magnitude of a range."""
    if method != "percentile":
        return max(float(np.abs(end).max()) for end in found[tensor].range_value)
    # The percentile lies within a bin, of which the library gives the lower edge: 0 for a tensor that is nearly always
    # nearly zero.  The upper edge clips no more than was asked for.
    counts, edges = calibrator.collector.get_histogram_dict()[tensor][:2]
    share = np.cumsum(counts) / np.sum(counts)
    return float(edges[int(np.searchsorted(share, PERCENTILE / 100)) + 1])


def _calibrator(method: str, folder: Path, model: onnx.ModelProto, tensors: list[str]) -> Any:
    from onnxruntime.quantization import calibrate

    source, watched = folder / "graph.onnx", folder / "watched.onnx"
    onnx.save(model, source)
    common = {"model_path": source, "augmented_model_path": str(watched), "symmetric": True}
    calibrator: Any
    if method == "minmax":
        calibrator = calibrate.MinMaxCalibrater(**common)
    elif method == "percentile":
        calibrator = calibrate.PercentileCalibrater(**common, num_bins=BINS[method], percentile=PERCENTILE)
    else:
        calibrator = calibrate.EntropyCalibrater(**common, num_bins=BINS[method], num_quantized_bins=ENTROPY_LEVELS)
    # Left alone it watches all inputs and outputs of an operator's kind: the depthwise strips' too, gigabytes a slice.
    shapes = {value.name: value for value in (*calibrator.model.graph.value_info, *calibrator.model.graph.input)}
    calibrator.select_tensors_to_calibrate = lambda _: (set(tensors), shapes)
    calibrator.augment_graph()
    calibrator.create_inference_session()
    return calibrator


class _One:
    """A reader of one example, for a library that reads until there is none."""

    def __init__(self, example: Feeds) -> None:
        self.left = [example]

    def get_next(self) -> Feeds | None:
        return self.left.pop() if self.left else None
