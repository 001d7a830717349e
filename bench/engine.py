"""Everything that is measured of one engine on this machine: ``lsms-rt bench ENGINE``.

Needs the runtime alone, so that a device can be measured where there is no PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from .energy import energy
from .example import SENTENCE, dataset, example, example_bytes
from .memory import peak_rss_mb, rss_mb
from .options import EngineOptions
from .samples import Samples, instability
from .sensors import find_sensors, no_sensors
from .stopwatch import FULL, Effort, measure

CLIENTS = (1, 2, 4)  # threads that ask at once
METHOD = {
    "clock": "wall clock around the call, in this process",
    "image": "a bundled phantom slice (256x256), read from DICOM bytes where it says so",
    "sentence": SENTENCE,
    "predict_cached": "predict of an array in HU, the sentence asked before",
    "predict_new_sentence": "the same with a sentence never asked before",
    "predict_from_dicom_bytes": "pydicom.dcmread of bytes, then predict, the sentence asked before",
    "events": "one slice, its sentence on the GPU; enqueue is the host's time, the others lie between CUDA events",
    "cold_start": "a fresh process each: imports, the engine opened, one mask",
}


Say = Callable[[str], None]


def measure_engine(path: Path, options: EngineOptions, say: Say = lambda _: None) -> dict[str, Any]:
    """A record in plain types: raw samples, figures, warnings."""
    index = gpu_index(open_directory(path).manifest, options.device)
    has_sensors = index is not None or jetson.find() is not None
    sensors = find_sensors(index or 0) if has_sensors else no_sensors("it ran on the CPU, whose counters are not read")
    before = sensors.state()
    say("cold start")
    record: dict[str, Any] = {"cold_start": cold_start(path, options.threads, options.device, options.cold_starts)}
    opened = rss_mb()
    with Segmenter(path, threads=options.threads, device=options.device, cuda_graph=options.cuda_graph) as segmenter:
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
            say("latency")
            latency, stages = _latency(segmenter, options.effort)
            record["latency"], record["stages"] = _plain(latency), _plain(stages)
            say("throughput")
            record["throughput"] = _plain(_throughput(segmenter, options))
        opened_state = sensors.state()
        say("energy" if sensors.meter is not None and options.energy_s else "energy: no sensor")
        record["energy"] = (
            energy(_series(segmenter, options.series, None), sensors, options.energy_s)
            if options.energy_s
            else {"absent": "not asked for"}
        )
    record["memory"] = {"rss_before_mb": opened, "rss_after_mb": rss_mb(), "peak_rss_mb": peak_rss_mb()}
    record["memory"]["device"] = _device_memory(before, opened_state)
    ways: Ways = {}
    if manifest.backend in VARIANTS:
        say("events of the GPU, with and without a CUDA graph")
        ways = with_and_without_graph(path, options.device, example(), SENTENCE, options.effort)
    record["events"] = {way: _plain(found) for way, found in ways.items()}
    after = sensors.state()
    record["device_state"] = {"before": before, "after": after}
    record["warnings"] = [line for name, samples in latency.items() for line in instability(name, samples)]
    if options.effort != FULL:
        record["warnings"].append("a quick look: few samples, hardly warmed up; no figures to rely on")
    record["warnings"] += host_bound(ways) + sensors.throttled([before, *states, after])
    record["method"] = METHOD | {
        "effort": options.effort.to_dict(),
        "threads": options.threads or "one a core",
        "device": options.device or "the backend's choice",
        "cuda_graph": options.cuda_graph,
        "series": f"{options.series} slices, {options.rounds} rounds",
    }
    return record


def gpu_index(manifest: Manifest, device: str | None) -> int | None:
    """The GPU that an engine would run on; None for a CPU."""
    return BACKENDS[manifest.backend].load().gpu_index(*parse_device(device))


def _device_memory(before: dict[str, Any], opened: dict[str, Any]) -> dict[str, Any]:
    """MB in use on the whole device, by anybody: a Jetson's is the board's.  Their difference is about the engine's."""
    if "absent" in before or "absent" in opened:
        return {"absent": before.get("absent") or opened["absent"]}
    return {"used_before_mb": _used_mb(before), "used_open_mb": _used_mb(opened)}


def _used_mb(state: dict[str, Any]) -> float | None:
    return state["used_mb"] if "used_mb" in state else state.get("ram_mb")


def _plain(figures: dict[str, Samples]) -> dict[str, Any]:
    return {name: samples.to_dict() for name, samples in figures.items()}


def _latency(segmenter: Segmenter, effort: Effort) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Samples of ``predict`` in three ways, and of its stages in the first."""
    hu, data, fresh = example(), example_bytes(), _sentences()
    stages: dict[str, list[float]] = {}

    def cached() -> None:
        for name, value in segmenter.predict(hu, SENTENCE).timings.items():
            stages.setdefault(name, []).append(value)

    found = {
        "predict_cached": measure(cached, effort),
        "predict_new_sentence": measure(lambda: segmenter.predict(hu, next(fresh)), effort),
        "predict_from_dicom_bytes": measure(lambda: segmenter.predict(dataset(data), SENTENCE), effort),
    }
    count = len(found["predict_cached"].values)  # without those of the warm-up
    return found, {name: Samples(tuple(values[-count:])) for name, values in stages.items()}


def _throughput(segmenter: Segmenter, options: EngineOptions) -> dict[str, Samples]:
    """Slices a second, rounds in turn: a series by batch, and clients that ask for one slice at a time."""
    most = segmenter.manifest.max_batch
    batches = options.batches or tuple(sorted({*(2**n for n in range(most.bit_length()) if 2**n <= most), most}))
    slices = max(options.series, 2 * max(batches))  # so that no batch is a part of one
    ways = {f"series, batch {batch}": _series(segmenter, slices, batch) for batch in batches}
    ways |= {
        f"predict, {clients} client{'s' * (clients > 1)}": _clients(segmenter, options.series, clients)
        for clients in CLIENTS
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, run in ways.items():
            begin = time.perf_counter()
            slices = run()
            if number:  # the first round warms up
                rates[name].append(slices / (time.perf_counter() - begin))
    return {name: Samples(tuple(values), "slices/s") for name, values in rates.items()}


def _series(segmenter: Segmenter, slices: int, batch: int | None) -> Callable[[], int]:
    """What predicts a series and says how many slices it had."""
    images = [example()] * slices  # here: reading them is no part of what is timed
    return lambda: sum(1 for _ in segmenter.predict_series(images, SENTENCE, batch=batch))


def _clients(segmenter: Segmenter, slices: int, clients: int) -> Callable[[], int]:
    """The same of threads that predict one slice at a time."""
    hu = example()

    def run() -> int:
        with ThreadPoolExecutor(clients) as pool:
            return sum(1 for _ in pool.map(lambda _: segmenter.predict(hu, SENTENCE), range(slices)))

    return run


def _sentences() -> Iterator[str]:
    """Sentences of one length, each new to the cache."""
    return (f"{SENTENCE} {number:04d}" for number in count())
