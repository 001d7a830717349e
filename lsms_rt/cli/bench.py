"""The commands that measure: bench, bench peers, bench scaling, bench report, bench compare."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lsms_rt.errors import InputError
from lsms_rt.machine.gpu import look

from .build import say

GPU_PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-libs", "pycuda")  # whose versions matter there


def bench(options: argparse.Namespace) -> None:
    from lsms_rt.bench.engine import Options, measure_engine
    from lsms_rt.bench.records import ENGINES, record_of
    from lsms_rt.bench.tables import markdown
    from lsms_rt.bench.timing import FULL, QUICK

    _writable(options.json)
    names = [path.name for path in options.engines]
    if len(set(names)) < len(names):
        raise InputError("two engines have one name, which would be one row; rename a folder")
    wanted = Options(
        threads=options.threads,
        device=options.device,
        cuda_graph=not options.no_cuda_graph,
        effort=QUICK if options.quick else FULL,
        rounds=1 if options.quick else Options.rounds,
        series=8 if options.quick else Options.series,
        cold_starts=1 if options.quick else Options.cold_starts,
        energy_s=0 if options.quick else Options.energy_s,
    )
    engines = {
        path.name: measure_engine(path, wanted, lambda text, path=path: say(f"{path.name}: {text}"))  # type: ignore[misc]
        for path in options.engines
    }
    gpu = next((engine["engine"]["gpu"] for engine in engines.values() if engine["engine"]["gpu"]), None)
    record = record_of(ENGINES, ("onnxruntime", "numpy", *GPU_PACKAGES), gpu, engines=engines)
    _put(record, markdown(record), options.json)


def peers(options: argparse.Namespace) -> None:
    from lsms_rt.bench.peers.contenders import CONTENDERS
    from lsms_rt.bench.peers.prepare import prepare
    from lsms_rt.bench.peers.side_by_side import OURS, PeersOptions, random_inputs, run
    from lsms_rt.bench.records import PEERS, record_of
    from lsms_rt.bench.tables import markdown

    _writable(options.json)
    known = tuple(contender.name for contender in CONTENDERS)
    unknown = sorted(set(options.without) - set(known) | ({OURS} & set(options.without)))
    if unknown:
        raise InputError(f"--without {','.join(unknown)}; choose from {', '.join(known[1:])}")
    plan = PeersOptions(
        slices=options.slices,
        launches=options.launches,
        rounds=options.rounds,
        threads=options.threads or 0,
        names=tuple(name for name in known if name not in options.without),
    )
    with tempfile.TemporaryDirectory(prefix="lsms-peers-") as place:
        folder = Path(place)
        say("making the checkpoint, the naive graphs and the engine (a minute)")
        what = prepare(folder, options.checkpoint, options.preset, options.image_size)
        random_inputs(plan, folder, options.image_size, what.pop("max_tokens"), what.pop("vocabulary"))
        found = run(folder, plan, say)
    on_gpu = any(contender.gpu and contender.name in plan.names and not contender.absent for contender in CONTENDERS)
    gpu = look().gpus[0].name if on_gpu else None
    record = record_of(PEERS, ("torch", "onnxruntime", "openvino", "numpy", *GPU_PACKAGES), gpu, **what, **found)
    _put(record, markdown(record), options.json)


def scaling(options: argparse.Namespace) -> None:
    from lsms_rt.bench.records import SCALING, record_of
    from lsms_rt.bench.scaling.axes import ScalingOptions, measure_scaling
    from lsms_rt.bench.tables import markdown

    _writable(options.json)
    plan = ScalingOptions(preset=options.preset, image_size=options.image_size, rounds=options.rounds)
    record = record_of(SCALING, ("torch", "onnxruntime", "numpy"), **measure_scaling(plan, say))
    _put(record, markdown(record), options.json)


def report(options: argparse.Namespace) -> None:
    from lsms_rt.bench.report import write_report

    for path in write_report(options.files, options.output):
        print(path)


def compare(options: argparse.Namespace) -> None:
    from lsms_rt.bench.compare import compare as compare_records
    from lsms_rt.bench.records import PEERS, read
    from lsms_rt.bench.tables import compare_table

    a, b = read(options.a), read(options.b)
    found, cautions = compare_records(a, b, options.noise)
    if options.json:
        print(json.dumps({"differences": [d.to_dict() for d in found], "cautions": cautions}, indent=2))
    else:
        print(compare_table(found))
        for caution in cautions:
            say(f"warning: {caution}")
    ours = [d for d in found if a["kind"] != PEERS or d.name == "ours" or d.unit == "times ours"]  # not a rival's own
    slower = [difference.name for difference in ours if difference.verdict == "slower"]
    if slower and options.fail_on_slower:
        say(f"slower: {', '.join(slower)}")
        sys.exit(1)


def _writable(path: Path | None) -> None:
    """Before minutes of measuring: raises :class:`InputError` where the record cannot be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written ({error.strerror}); give another file") from error


def _put(record: dict[str, Any], text: str, path: Path | None) -> None:
    print(text)
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")
        say(f"written to {path}; pictures: lsms-rt bench report {path} -o DIR")


RUNS = {
    "bench": bench,
    "bench peers": peers,
    "bench scaling": scaling,
    "bench report": report,
    "bench compare": compare,
}
