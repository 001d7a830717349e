"""Check the TensorRT runtime on a GPU: driver calls, CUDA graphs, engines.

A check that the machine cannot run is skipped, and its row states the reason.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.data import demo_engine
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.tensorrt.cuda import Device
from lsms_rt.engine.tensorrt.variant import VARIANTS, TensorRtVariant
from lsms_rt.errors import LsmsError
from lsms_rt.export.options import PlanOptions
from lsms_rt.export.plans import convert_engine
from lsms_rt.machine.gpu import query_driver

Row = dict[str, Any]


def verify_runtime() -> list[Row]:
    """Return one row for the driver calls and one per TensorRT variant: the result, or why it was not run."""
    rows = [_row("driver calls and a captured graph", driver_calls)]
    return rows + [_row(variant.title, lambda: engine(variant)) for variant in VARIANTS.values()]  # noqa: B023


def _row(what: str, check: Callable[[], Row]) -> Row:
    driver = query_driver()
    if driver.problem or importlib.util.find_spec("pycuda") is None:
        return {"what": what, "not_run": driver.problem or "pycuda is not installed"}
    try:
        return {"what": what} | check()
    except LsmsError as error:
        return {"what": what, "not_run": str(error)}


def driver_calls() -> Row:
    """Copy to the device and back through a captured graph, which must follow its input, and copies their stream."""
    import pycuda.driver as cuda

    device = Device(0, query_driver().gpus[0].integrated)
    with device.current():
        source, target = (device.buffer((1 << 20,), np.dtype(np.float32)) for _ in range(2))
        stream, event = device.stream(), device.event()

        def enqueue() -> bool:
            cuda.memcpy_dtod_async(target.address, source.address, target.host.nbytes, stream)
            return True

        enqueue()
        stream.synchronize()
        graph = device.capture(stream, enqueue)
        correct = []
        for value in (1.0, 2.0):
            source.host[:] = value
            source.upload(stream)
            graph.launch()
            target.download(stream)
            event.record(stream)
            event.synchronize()
            correct.append(bool((target.host == value).all()))
        graph.free()
        for buffer in (source, target):
            buffer.free()
    return {"graph_follows_its_input": all(correct), "ok": all(correct)}


def engine(variant: TensorRtVariant) -> Row:
    """Build plans of the bundled engine; compare runs with and without CUDA graphs, of single batches and series."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plans.engine"
        manifest = convert_engine(demo_engine(), variant, (1, 4, 8), PlanOptions(), path)
        if "plans" not in manifest.accuracy:
            return {"not_run": "the plans do not run on this machine; lsms-rt build-engine reports the reason"}
        directory, size = open_directory(path), manifest.image_size
        with_graphs, without = open_backend(directory), open_backend(directory, cuda_graph=False)
        rng = np.random.default_rng(0)
        images = [rng.uniform(-1, 1, (n, 1, size, size)).astype(np.float32) for n in (4, 4, 4, 2)]
        tokens, mask = np.ones((1, manifest.max_tokens), np.int64), np.ones((1, manifest.max_tokens), np.float32)
        text, other = with_graphs.encode_text(tokens, mask), without.encode_text(tokens, mask)
        single = [without.segment(batch, other) for batch in images]
        series = list(with_graphs.segment_many(images, text))
        differences = [float(np.abs(a - b).max()) for a, b in zip(single, series, strict=True)]
        for backend in (with_graphs, without):
            backend.close()
    changes = float(np.abs(series[0] - series[1]).max())
    row = {"plans_against_graphs": manifest.accuracy["plans"], "graph_against_none": max(differences)}
    return row | {"another_image_changes": changes, "ok": max(differences) < 1e-3 < changes}
