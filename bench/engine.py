"""Measure one engine on this machine: ``lsms-rt bench ENGINE``.

Needs only the runtime, so that a device without PyTorch can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.registry import BACKENDS, parse_device
from lsms_rt.engine.tensorrt.variant import VARIANTS
from lsms_rt.machine import jetson
from lsms_rt.machine.gpu import query_driver
from lsms_rt.segmenter import Segmenter

from .cold_start import cold_start
from .device_times import Ways, host_bound, with_and_without_graph
from .example import SENTENCE, dataset, example, example_bytes
from .memory import peak_rss_mb, rss_mb
from .options import EngineOptions
from .samples import Samples, instability
from .sensors import energy, find_sensors, no_sensors
from .timing import FULL, Effort, cost, measure, rounds

# Threads that predict at the same time.
CLIENTS = (1, 2, 4)
METHOD = {
    "clock": "wall clock around the call, in this process",
    "image": "a bundled phantom slice (256x256), read from DICOM bytes for predict_from_dicom_bytes",
    "sentence": SENTENCE,
    "predict_cached": "predict of an array in HU with a cached sentence",
    "predict_new_sentence": "the same with a new sentence",
    "predict_from_dicom_bytes": "pydicom.dcmread of bytes, then predict with a cached sentence",
    "events": "one slice with its sentence on the GPU; enqueue is host time, the others are between CUDA events",
    "cpu_ms_a_slice": "time of all threads of this process on all cores together, waiting threads that spin included",
    "cold_start": "a fresh process for each sample: imports, opening the engine, one mask",
}


Status = Callable[[str], None]


def measure_engine(
    path: Path, options: EngineOptions, status: Status = lambda _: None, digest: str | None = None
) -> dict[str, Any]:
    """Measure cold start, latency, throughput, memory and, with sensors, energy.

    Args:
        path: Engine directory.
        options: What to measure.
        status: Called with the name of each step.
        digest: "sha256:HEX" of the engine from a trusted source; another engine is rejected.  None: no check.

    Returns:
        Figures, raw samples and warnings in plain types: one entry of the "engines" of a record.
    """
    directory = open_directory(path, digest, trust_host_code=options.trust_host_code)
    # Who vouches for the engine vouches for what was just read, so it is opened by this digest from here on.
    pinned = directory.digest if directory.trusted else None
    index = gpu_index(directory.manifest, options.device)
    has_sensors = index is not None or jetson.find() is not None
    sensors = (
        find_sensors(index or 0)
        if has_sensors
        else no_sensors("the engine runs on the CPU, whose sensors are not read")
    )
    before = sensors.state()
    status("cold start")
    record: dict[str, Any] = {
        "cold_start": cold_start(path, options.threads, options.device, options.cold_starts, pinned)
    }
    opened = rss_mb()
    with Segmenter(
        path,
        digest=pinned,
        threads=options.threads,
        device=options.device,
        cuda_graph=options.cuda_graph,
        # An engine of other words takes as long.
        on_unknown="warn",
    ) as segmenter:
        manifest = segmenter.manifest
        record["engine"] = {
            "name": path.name,
            "digest": segmenter.digest,
            "backend": manifest.backend,
            "preset": manifest.preset,
            "precision": manifest.precision,
            "image_size": manifest.image_size,
            "kernels": manifest.kernels,
            "weights": manifest.weights_note,
            "backend_version": manifest.backend_version,
            "gpu": None if index is None else query_driver().gpus[index].name,
        }
        with sensors.watched() as states:
            status("latency")
            latency, stages = _latency(segmenter, options.effort)
            record["latency"], record["stages"] = _plain(latency), _plain(stages)
            status("throughput")
            throughput, cpu = _throughput(segmenter, options)
            record["throughput"], record["cpu_ms_a_slice"] = _plain(throughput), _plain(cpu)
        opened_state = sensors.state()
        status("energy" if sensors.meter is not None and options.energy_s else "energy: no sensor")
        record["energy"] = (
            energy(_series(segmenter, options.series, None), sensors, options.energy_s)
            if options.energy_s
            else {"absent": "not requested"}
        )
    record["memory"] = {"rss_before_mb": opened, "rss_after_mb": rss_mb(), "peak_rss_mb": peak_rss_mb()}
    record["memory"]["device"] = _device_memory(before, opened_state)
    ways: Ways = {}
    if manifest.backend in VARIANTS:
        status("events of the GPU, with and without a CUDA graph")
        ways = with_and_without_graph(path, options.device, example(), SENTENCE, options.effort, pinned)
    record["events"] = {way: _plain(samples) for way, samples in ways.items()}
    after = sensors.state()
    record["device_state"] = {"before": before, "after": after}
    record["warnings"] = [line for name, samples in latency.items() for line in instability(name, samples)]
    if options.effort != FULL:
        record["warnings"].append("quick mode: few samples and little warm-up; do not publish these figures")
    record["warnings"] += host_bound(ways) + sensors.throttled([before, *states, after])
    record["method"] = METHOD | {
        "effort": options.effort.to_dict(),
        "threads": options.threads or "one per core",
        "device": options.device or "the backend's choice",
        "cuda_graph": options.cuda_graph,
        "series": f"{options.series} slices, {options.rounds} rounds",
    }
    return record


def gpu_index(manifest: Manifest, device: str | None) -> int | None:
    """Return the index of the GPU that an engine would run on; None for a CPU."""
    return BACKENDS[manifest.backend].load().gpu_index(*parse_device(device))


def _device_memory(before: dict[str, Any], opened: dict[str, Any]) -> dict[str, Any]:
    """Return the MB in use on the whole device (a Jetson: on the board) before and after opening the engine.

    All processes count, so the difference is only about the memory of the engine.
    """
    if "absent" in before or "absent" in opened:
        return {"absent": before.get("absent") or opened["absent"]}
    return {"used_before_mb": _used_mb(before), "used_open_mb": _used_mb(opened)}


def _used_mb(state: dict[str, Any]) -> float | None:
    return state["used_mb"] if "used_mb" in state else state.get("ram_mb")


def _plain(figures: dict[str, Samples]) -> dict[str, Any]:
    return {name: samples.to_dict() for name, samples in figures.items()}


def _latency(segmenter: Segmenter, effort: Effort) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Measure ``predict`` in three ways, and its stages in the first one."""
    hu, data, fresh = example(), example_bytes(), _sentences()
    stages: dict[str, list[float]] = {}

    def cached() -> None:
        for name, value in segmenter.predict(hu, SENTENCE).timings.items():
            stages.setdefault(name, []).append(value)

    latency = {
        "predict_cached": measure(cached, effort),
        "predict_new_sentence": measure(lambda: segmenter.predict(hu, next(fresh)), effort),
        "predict_from_dicom_bytes": measure(lambda: segmenter.predict(dataset(data), SENTENCE), effort),
    }
    # Without those of the warm-up.
    count = len(latency["predict_cached"].values)
    return latency, {name: Samples(tuple(values[-count:])) for name, values in stages.items()}


def _throughput(segmenter: Segmenter, options: EngineOptions) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Measure series by batch size, and clients that predict single slices, in interleaved rounds.

    Returns:
        Slices per second, and the CPU time of a slice on all cores together.
    """
    limit = segmenter.manifest.max_batch
    batches = options.batches or tuple(sorted({*(2**n for n in range(limit.bit_length()) if 2**n <= limit), limit}))
    # At least two full batches.
    slices = max(options.series, 2 * max(batches))
    ways = {f"series, batch {batch}": _series(segmenter, slices, batch) for batch in batches}
    ways |= {
        f"predict, {clients} client{'s' * (clients > 1)}": _clients(segmenter, options.series, clients)
        for clients in CLIENTS
    }
    counts = {name: slices if name.startswith("series") else options.series for name in ways}
    took = rounds({name: partial(cost, run) for name, run in ways.items()}, options.rounds)
    speed = {
        name: Samples(tuple(counts[name] / one.seconds for one in costs), "slices/s") for name, costs in took.items()
    }
    return speed, {
        name: Samples(tuple(1000 * one.cpu_seconds / counts[name] for one in costs), "CPU ms")
        for name, costs in took.items()
    }


def _series(segmenter: Segmenter, slices: int, batch: int | None) -> Callable[[], int]:
    """Return a function that predicts a series and returns its number of slices."""
    # Made here, because reading the slices is not timed.
    images = [example()] * slices
    return lambda: sum(1 for _ in segmenter.predict_series(images, SENTENCE, batch=batch))


def _clients(segmenter: Segmenter, slices: int, clients: int) -> Callable[[], int]:
    """Return a function that does the same from threads that predict one slice at a time."""
    hu = example()

    def run() -> int:
        with ThreadPoolExecutor(clients) as pool:
            return sum(1 for _ in pool.map(lambda _: segmenter.predict(hu, SENTENCE), range(slices)))

    return run


def _sentences() -> Iterator[str]:
    """Yield sentences of the same length, none of which is cached."""
    return (f"{SENTENCE} {number:04d}" for number in count())
