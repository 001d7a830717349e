"""Where a GPU's time goes in one run of the image plan, with a CUDA graph and without.  Not run on a GPU yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.engine import open_backend, open_directory
from lsms_rt.segmenter import Segmenter

from .samples import Samples
from .stopwatch import Effort, collect, measure

Ways = dict[str, dict[str, Samples]]
HOST_BOUND = 0.8  # trtexec's own limit: enqueueing takes this much of what the GPU computes


def with_and_without_graph(path: Path, device: str | None, image: np.ndarray, text: str, effort: Effort) -> Ways:
    """Both ways -> ``predict`` with a cached sentence, and the events of one slice; in ms."""
    found = {}
    for name, graph in (("CUDA graph", True), ("no CUDA graph", False)):
        with Segmenter(path, device=device, cuda_graph=graph) as segmenter:
            predict = measure(lambda: segmenter.predict(image, text), effort)
            manifest = segmenter.manifest
        backend = open_backend(open_directory(path), device=device, cuda_graph=graph)
        try:
            events = event_times(backend, manifest, effort)
            captured = min(events.pop("captured").values)
            if graph and not captured:
                name = "CUDA graph asked for, not captured"
            found[name] = {"predict": predict} | events
        finally:
            backend.close()
    return found


def event_times(backend: Any, manifest: Any, effort: Effort) -> dict[str, Samples]:
    """Of one slice "enqueue", "h2d", "compute" and "d2h", as ``Marks.times`` of a ``TensorRtBackend``."""
    shape = (1, manifest.max_tokens)
    text = backend.encode_text(np.ones(shape, np.int64), np.ones(shape, np.float32))
    image = np.zeros((1, 1, manifest.image_size, manifest.image_size), np.float32)
    runs = collect(lambda: backend.times(image, text), effort)
    return {name: Samples(tuple(run[name] for run in runs)) for name in runs[0]}


def host_bound(found: Ways) -> list[str]:
    """A warning for each way in which the GPU waits for the host."""
    said = []
    for way, samples in found.items():
        share = samples["enqueue"].median / samples["compute"].median
        if share > HOST_BOUND:
            said.append(
                f"{way}: enqueueing takes {share:.0%} of the computing time (above {HOST_BOUND:.0%}): host bound"
            )
    return said
