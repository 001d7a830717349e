"""Calibrate activation ranges of dense layers with ONNX Runtime's calibrators.

The result is one number per layer: the clipping threshold, which is the largest magnitude of the layer's input that
INT8 represents.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lsms_rt.datasets.choose import record
from lsms_rt.datasets.questions import questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.export.graph.layers import DenseLayer

from .candidate import Candidates, Feeds
from .options import METHODS
from .recipe import Ranges, write_json

# Percentile of the magnitudes: one value in ten thousand is clipped.
PERCENTILE = 99.99
# Entropy tries every threshold, in Python: four times the bins take 16 times as long.
BINS = {"percentile": 2048, "entropy": 512}
ENTROPY_LEVELS = 128


def ranges_of(candidates: Candidates, rows: list[Annotation], method: str, output: Path) -> Ranges:
    """Measure the ranges of all layers on ``rows``, or read them from the cache in the folder ``output``.

    The cache is used if it belongs to the same engine, rows, method and versions.

    Returns:
        graph name -> layer name -> largest magnitude of the layer's input.
    """
    from tqdm import tqdm

    key = candidates.cache_key(record(rows), method, PERCENTILE, BINS, ENTROPY_LEVELS)
    cache = output / f"ranges-{method}.json"
    if cache.exists():
        cached = json.loads(cache.read_text())
        if cached.get("key") == key:
            return dict(cached["ranges"])
    ranges: Ranges = {}
    for name, graph in candidates.graphs.items():
        with tqdm(total=len(rows), desc=f"ranges of the {name} graph, {method}", unit="row", disable=None) as bar:
            feeds = (run.feeds[name] for run in candidates.run({}, questions(rows)) if name in run.feeds)
            ranges[name] = measure_ranges(graph, candidates.layers[name], feeds, method, bar.update)
    write_json(cache, {"key": key, "method": method, "ranges": ranges})
    return ranges


def measure_ranges(
    model: onnx.ModelProto,
    layers: list[DenseLayer],
    feeds: Iterable[Feeds],
    method: str,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, float]:
    """Measure the largest magnitude of every layer's input.

    The same graph, examples and order give the same numbers.

    Args:
        model: the graph, float32.
        layers: the layers to calibrate.
        feeds: examples of the graph's inputs.
        method: one of METHODS.
        progress: called after every example.

    Returns:
        layer name -> largest magnitude, a positive number.  It is 1 for an input that was zero everywhere, for which
        any range will do.

    Raises:
        ValueError: the method is unknown, or there are no examples.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose from {', '.join(METHODS)}")
    tensors = list(dict.fromkeys(layer.input for layer in layers))
    with tempfile.TemporaryDirectory() as folder:
        calibrator = _calibrator(method, Path(folder), model, tensors)
        empty = True
        for example in feeds:
            empty = False
            # The library prints a line for every tensor.
            with contextlib.redirect_stdout(io.StringIO()):
                calibrator.collect_data(_OneExample(example))
            progress()
        if empty:
            raise ValueError("there are no examples to calibrate on; pass at least one")
        with contextlib.redirect_stdout(io.StringIO()):
            collected = calibrator.compute_data()
    maxima = {name: _max_magnitude(calibrator, collected, name, method) for name in tensors}
    return {layer.name: maxima[layer.input] or 1.0 for layer in layers}


def _max_magnitude(calibrator: Any, collected: Any, tensor: str, method: str) -> float:
    if method != "percentile":
        return max(float(np.abs(end).max()) for end in collected[tensor].range_value)
    # The percentile lies within a bin, and the library returns the bin's lower edge, which is 0 for a tensor that is
    # nearly always nearly zero.  The upper edge never clips more than PERCENTILE allows.
    counts, edges = calibrator.collector.get_histogram_dict()[tensor][:2]
    share = np.cumsum(counts) / np.sum(counts)
    return float(edges[int(np.searchsorted(share, PERCENTILE / 100)) + 1])


def _calibrator(method: str, folder: Path, model: onnx.ModelProto, tensors: list[str]) -> Any:
    from onnxruntime.quantization import calibrate

    source, augmented = folder / "graph.onnx", folder / "augmented.onnx"
    onnx.save(model, source)
    common = {"model_path": source, "augmented_model_path": str(augmented), "symmetric": True}
    calibrator: Any
    if method == "minmax":
        calibrator = calibrate.MinMaxCalibrater(**common)
    elif method == "percentile":
        calibrator = calibrate.PercentileCalibrater(**common, num_bins=BINS[method], percentile=PERCENTILE)
    else:
        calibrator = calibrate.EntropyCalibrater(**common, num_bins=BINS[method], num_quantized_bins=ENTROPY_LEVELS)
    # By default the library observes all inputs and outputs of an operator type, those of the depthwise strips too:
    # gigabytes per slice.
    shapes = {value.name: value for value in (*calibrator.model.graph.value_info, *calibrator.model.graph.input)}
    calibrator.select_tensors_to_calibrate = lambda _: (set(tensors), shapes)
    calibrator.augment_graph()
    calibrator.create_inference_session()
    return calibrator


class _OneExample:
    """A data reader of one example, for a library that reads until there are no more."""

    def __init__(self, example: Feeds) -> None:
        self.remaining = [example]

    def get_next(self) -> Feeds | None:
        return self.remaining.pop() if self.remaining else None
