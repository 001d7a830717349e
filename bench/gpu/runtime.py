"""Check the TensorRT runtime on a GPU: driver calls, CUDA graphs, engines, and an engine with the kernels as plugins.

What a machine lacks is the reason why a check is not run; anything else that fails is an error, and has its trace.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.bench.records import RUNTIME_VERIFIED
from lsms_rt.data import demo_engine
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.tensorrt.cuda import Device
from lsms_rt.engine.tensorrt.variant import TENSORRT, VARIANTS, TensorRtVariant
from lsms_rt.export.options import BuildOptions, GateOptions, PlanOptions
from lsms_rt.export.plans import convert_engine
from lsms_rt.machine.gpu import query_driver

from .worker import NotRunError

Row = dict[str, Any]


def driver_unit() -> Iterator[Row]:
    """Check the driver calls of the runtime."""
    _require("pycuda")
    yield {"kind": RUNTIME_VERIFIED, "what": "driver calls and a captured graph"} | driver_calls()


def engine_unit(variant: str) -> Iterator[Row]:
    """Check plans of the bundled engine, which has stock blocks."""
    library = VARIANTS[variant]
    _require("pycuda", library)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plans.engine"
        manifest = convert_engine(demo_engine(), library, (1, 4, 8), PlanOptions(), path)
        yield {"kind": RUNTIME_VERIFIED, "what": library.title} | engine(path, manifest)


def plugins_unit() -> Iterator[Row]:
    """Check an engine in fp16 with the project's kernels as plugins, which needs everything that builds one."""
    from lsms_rt.export.build import build_engine

    _require("pycuda", TENSORRT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plugins.engine"
        gate = GateOptions(sentences=0)
        options = BuildOptions(backend=TENSORRT.name, precision="fp16", kernels="triton", gate=gate)
        manifest = build_engine(options, path)
        yield {"kind": RUNTIME_VERIFIED, "what": "TensorRT with plugins"} | engine(path, manifest)


def _require(package: str, library: TensorRtVariant | None = None) -> None:
    """Raise NotRunError unless this machine has a GPU, a package, and a TensorRT library."""
    driver = query_driver()
    if driver.problem:
        raise NotRunError(driver.problem)
    if importlib.util.find_spec(package) is None:
        raise NotRunError(f"{package} is not installed; docs/gpu.md says how to bring it along")
    if library and not any(importlib.util.find_spec(name) for name in library.modules):
        raise NotRunError(f"{library.title} is not installed; {library.install}")


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


def engine(path: Path, manifest: Manifest) -> Row:
    """Compare runs of an engine with and without CUDA graphs, of single batches and series."""
    # An engine that was built from a checkpoint has no others.
    plans = manifest.accuracy.get("plans", manifest.accuracy)
    if isinstance(plans, str):
        # Built for other GPUs than this one, as plans of TensorRT for RTX can be.
        raise NotRunError(f"plans {plans}")
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
    row = {"plans_against_reference": plans, "graph_against_none": max(differences)}
    return row | {"another_image_changes": changes, "ok": max(differences) < 1e-3 < changes}
