"""How the time of a GPU is spent in one run of the image plan, with a CUDA graph and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.engine import open_backend, open_directory
from lsms_rt.segmenter import Segmenter

from .samples import Samples
from .timing import Effort, collect, measure

Ways = dict[str, dict[str, Samples]]
# trtexec's own limit: the share of the computing time from which on enqueueing is too slow.
HOST_BOUND = 0.8


def with_and_without_graph(
    path: Path, device: str | None, image: np.ndarray, text: str, effort: Effort, digest: str | None = None
) -> Ways:
    """Measure an engine in both ways: ``predict`` with a cached sentence, and the events of one slice, in ms."""
    ways = {}
    for name, graph in (("CUDA graph", True), ("no CUDA graph", False)):
        with Segmenter(path, digest=digest, device=device, cuda_graph=graph, on_unknown="warn") as segmenter:
            predict = measure(lambda: segmenter.predict(image, text), effort)
            manifest = segmenter.manifest
        backend = open_backend(open_directory(path, digest), device=device, cuda_graph=graph)
        try:
            events = event_times(backend, manifest, effort)
            captured = min(events.pop("captured").values)
            if graph and not captured:
                name = "CUDA graph requested, not captured"
            ways[name] = {"predict": predict} | events
        finally:
            backend.close()
    return ways


def event_times(backend: Any, manifest: Any, effort: Effort) -> dict[str, Samples]:
    """Measure "enqueue", "h2d", "compute" and "d2h" of one slice with ``times`` of a ``TensorRtBackend``."""
    shape = (1, manifest.max_tokens)
    text = backend.encode_text(np.ones(shape, np.int64), np.ones(shape, np.float32))
    image = np.zeros((1, 1, manifest.image_size, manifest.image_size), np.float32)
    runs = collect(lambda: backend.times(image, text), effort)
    return {name: Samples(tuple(run[name] for run in runs)) for name in runs[0]}


def host_bound(ways: Ways) -> list[str]:
    """Return a warning for each way in which the GPU waits for the host."""
    warnings = []
    for way, samples in ways.items():
        share = samples["enqueue"].median / samples["compute"].median
        if share > HOST_BOUND:
            warnings.append(
                f"{way}: enqueueing takes {share:.0%} of the computing time (above {HOST_BOUND:.0%}): host bound"
            )
    return warnings
