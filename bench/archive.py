"""An archive in parts: ``python -m lsms_rt.bench.archive measure -o FILE``, and the plan for a large one: ``... plan``.

``measure`` runs ``lsms-rt predict --shard`` with one and two processes of one thread each, by turns, and takes the CPU
time of reading, computing and writing in one process.  ``plan`` computes from such a record, and from the latency of a
GPU, what an archive takes; nothing of it is measured on one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lsms_rt.machine.cpu import cpu_count

from .records import ARCHIVE, add_output_options, put, read, record_of

RESULTS = Path(__file__).parent / "results"
TEXT = "the largest lesion in the liver"
SIZE = 512
PROCESSES = (1, 2)


def measure(series: int, slices: int, rounds: int) -> dict[str, Any]:
    """Return the record of ``rounds`` with one and two processes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _write(Path(folder) / "in", series, slices)
        bytes_in = sum(file.stat().st_size for path in paths for file in path.iterdir())
        runs: dict[int, list[dict[str, Any]]] = {count: [] for count in PROCESSES}
        for turn in range(rounds):
            for count in PROCESSES if turn % 2 == 0 else PROCESSES[::-1]:
                runs[count].append(_run(paths, Path(folder) / "out", count))
        steps = [_steps(path, Path(folder) / "pictures") for path in paths[:rounds]]
    total = series * slices
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(runs[1], runs[2], strict=True)]
    return record_of(
        ARCHIVE, ("onnxruntime", "numpy", "pydicom", "pillow"),
        what=f"predict --shard on {series} series of {slices} slices of {SIZE}x{SIZE}, demo engine, a thread a process",
        rounds=rounds, slices=total, cores=cpu_count(), bytes_read_a_slice=bytes_in / total,
        bytes_written_a_slice=runs[1][0]["bytes"] / total,
        cpu_ms_a_slice={step: _spread([one[step] for one in steps]) for step in steps[0]},
        slices_a_second={str(n): _spread([total / run["seconds"] for run in runs[n]]) for n in PROCESSES},
        two_over_one=_spread(ratios),
    )  # fmt: skip


def _steps(series: Path, out: Path) -> dict[str, float]:
    """Return the CPU ms a slice of each step, in this process."""
    from lsms_rt.data import demo_engine
    from lsms_rt.reading.load import load_slices
    from lsms_rt.segmenter import Segmenter

    out.mkdir(exist_ok=True)
    with Segmenter(demo_engine(), threads=1) as segmenter:
        segmenter.prepare_sentence(TEXT)
        moments = [time.process_time()]
        slices = load_slices(series)
        moments.append(time.process_time())
        results = list(segmenter.predict_series(slices, TEXT))
        moments.append(time.process_time())
        for result in results:
            result.save_overlay(out / "overlay.png")
            result.save_mask(out / "mask.png")
        moments.append(time.process_time())
    spent = [1000 * (after - before) / len(slices) for before, after in pairwise(moments)]
    return dict(zip(("reading", "engine", "writing"), spent, strict=True))


def _write(root: Path, series: int, slices: int) -> list[Path]:
    from lsms_rt.datasets.phantom.case import generate_case
    from lsms_rt.datasets.phantom.dicom import write_slice

    case, paths = generate_case(4242, slices, SIZE), []
    for number in range(series):
        paths.append(root / f"s{number}")
        paths[-1].mkdir(parents=True)
        for index in range(slices):
            write_slice(paths[-1] / f"{index}.dcm", case, index, f"case{number}")
    return paths


def _run(paths: list[Path], out: Path, count: int) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    command = [sys.executable, "-m", "lsms_rt.cli", "predict", "demo", *map(str, paths), "--text", TEXT, "-o", str(out)]
    shards = [
        subprocess.Popen([*command, "--threads", "1", "--shard", f"{n}/{count}"], stdout=subprocess.DEVNULL)
        for n in range(1, count + 1)
    ]
    codes = [shard.wait() for shard in shards]
    if any(codes):
        raise RuntimeError("a shard failed")
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file())}


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(values), "min": min(values), "max": max(values)}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What is planned; ``price`` is of a GPU with its cores, an hour, ``disk_mb_s`` of the storage as a whole."""

    series: int = 10_000
    slices: int = 300
    gpus: int = 8
    cores: int = 16
    disk_mb_s: float = 2000.0
    price: float = 3.0


def plan(archive: Archive, parts: dict[str, Any], models: dict[str, Any]) -> str:
    """Return the plan as a table.

    Args:
        archive: what is planned.
        parts: a record of :func:`measure`.
        models: a record of the latency of the image graph on a GPU.
    """
    total = archive.series * archive.slices
    host = sum(parts["cpu_ms_a_slice"][step]["p50"] for step in ("reading", "writing"))
    read_gb, written_gb = (total * parts[f"bytes_{way}_a_slice"] / 1e9 for way in ("read", "written"))
    disk = (read_gb + written_gb) * 1e3 / archive.disk_mb_s
    at = f"{disk / 3600:.1f} h at {archive.disk_mb_s:.0f} MB/s (assumed)"
    lines = [
        f"{archive.series} series of {archive.slices} slices, {archive.gpus} GPUs with {archive.cores} cores each:",
        f"{read_gb:.0f} GB are read and {written_gb:.0f} GB written, {at}; {host:.1f} ms of CPU per slice.",
        "",
        "| model, batch | GPU, ms a slice | processes a GPU | hours | bottleneck | GPU busy | per 1000 series |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in models["rows"]:
        gpu = row["ours"]["p50"] / row["batch"]
        for processes in dict.fromkeys((1, min(archive.cores, 1 + round(host / gpu)))):
            # A process reads, computes and writes one after the other; several overlap.
            alone = (host + gpu) / processes
            seconds = {"reading and writing": total * alone / 1e3 / archive.gpus, "storage": disk}
            seconds["GPU"] = total * gpu / 1e3 / archive.gpus
            bottleneck = max(seconds, key=lambda name: seconds[name])
            hours = seconds[bottleneck] / 3600
            price = hours * archive.gpus * archive.price / archive.series * 1e3
            cells = (
                f"{row['preset']}, {row['batch']}", f"{gpu:.2f}", f"{processes}", f"{hours:.1f}", bottleneck,
                f"{seconds['GPU'] / seconds[bottleneck]:.0%}", f"{price:.2f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    measured = f"GPU: {models['device']['gpu']}, image graph alone, commit {models['commit']}"
    measured += f"; core and bytes: {parts['device']['processor']}, commit {parts['commit']}"
    price = f"price: {archive.price:g} per GPU and hour, assumed"
    return "\n".join([*lines, "", f"Measured ({SIZE}x{SIZE}): {measured}. Computed: all else; {price}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    for name, default in (("series", 6), ("slices", 24), ("rounds", 5)):
        measuring.add_argument(f"--{name}", type=int, default=default)
    add_output_options(measuring)
    planning = commands.add_parser("plan")
    planning.add_argument("--parts", type=Path, default=RESULTS / "cpu" / "archive.json")
    planning.add_argument("--models", type=Path, default=RESULTS / "nvidia-h200" / "models_timed.json")
    for name, value in vars(Archive()).items():
        planning.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = parser.parse_args()
    if given.command == "plan":
        fields = {name: getattr(given, name) for name in vars(Archive())}
        print(plan(Archive(**fields), read(given.parts), read(given.models)))
        return
    record = measure(given.series, given.slices, given.rounds)
    lines = [f"{step:8} {spread['p50']:6.2f} CPU ms a slice" for step, spread in record["cpu_ms_a_slice"].items()]
    ratio = record["two_over_one"]
    spread = f"{ratio['p50']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
    lines.append(f"two processes on {record['cores']} cores do {spread} times the work of one")
    put(record, "\n".join(lines), given)


if __name__ == "__main__":
    main()
