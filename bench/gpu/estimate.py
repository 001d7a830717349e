"""Compare the latency model with times measured on a GPU, and say what each change is worth by it.

``python -m lsms_rt.bench.gpu.estimate`` compiles the kernels, computes their times (``kernels/latency.py``) and puts
them beside the measured ones of ``bench/results/nvidia-h200``: alone in a CUDA graph, and by the profiler in the image
graph.  ``--changes`` says what each new form takes from the measured image graph: the measured time of what is no
longer launched, less the computed time of what is.

Two numbers of the model were fitted to these very times, so the comparison shows how well they describe that GPU, not
how well they predict another.  They were measured with another Triton (3.6.0) than may compile here; the 1x1s, the 3x3
and the LayerNorm around SVLA have no measurement to compare with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lsms_rt.bench import records
from lsms_rt.bench.tables import rows_table
from lsms_rt.kernels import registry
from lsms_rt.kernels.ptx_trace import Trace, forms, traces
from lsms_rt.kernels.shape import Shape, rest_shapes, stage_shapes
from lsms_rt.model.config import PRESETS

MEASURED = Path(__file__).parents[1] / "results" / "nvidia-h200"


@dataclass(frozen=True)
class Change:
    """What a change takes from the image graph and puts into it.

    Attributes:
        name: of the change.
        removed: kernels that are no longer launched, by the start of their names in the profile.
        added: microseconds of the launches in their place, computed (``model_microseconds``).
    """

    name: str
    removed: tuple[str, ...]
    added: float


@dataclass(frozen=True)
class Worth:
    """Microseconds that a change takes away (measured) and puts in (computed), and of the image graph after it."""

    name: str
    removed: float
    added: float
    graph: float


def worth(profile: Mapping[str, float], total: float, changes: Iterable[Change]) -> list[Worth]:
    """Apply changes one after the other to a measured image graph.

    Args:
        profile: kernel -> measured microseconds in one run of the image graph.
        total: measured microseconds of all its kernels.
        changes: in order; a kernel that an earlier one removed is gone.
    """
    left, rows = dict(profile), []
    for change in changes:
        gone = [name for name in left if name.startswith(change.removed)]
        removed = sum(left.pop(name) for name in gone)
        total += change.added - removed
        rows.append(Worth(change.name, removed, change.added, total))
    return rows


def model_microseconds(rows: Iterable[Trace], preset: str, image_size: int = 512) -> dict[tuple[str, str], float]:
    """Return the computed microseconds of every kernel and form in all blocks of a model: (kernel, form) -> time.

    A kernel counts at the stages at which ``rows`` has it.
    """
    depths = dict(zip((shape.key for shape in stage_shapes(preset, image_size)), PRESETS[preset].depths, strict=True))
    times: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row.kernel, row.form
        times[key] = times.get(key, 0.0) + depths.get(row.shape, 0) * row.microseconds
    return times


def chain_traces(shape: Shape, batch: int = 1) -> list[Trace]:
    """Compile and trace the kernels that a block launches, in their default forms, for sm_90."""
    return [row for module in registry.chain(shape) for row in traces(module, shape, "sm_90", batch)
            if row.form == forms(module)[0]]  # fmt: skip


def profile_of(preset: str, batch: int, way: str = "ours", folder: Path = MEASURED) -> tuple[dict[str, float], float]:
    """Return the measured microseconds of every kernel in the image graph, and of all of them."""
    for row in records.read(folder / "shares.json")["rows"]:
        if (row["preset"], row["batch"], row["way"]) == (preset, batch, way):
            return dict(row["longest_us"]), float(row["kernels_us"])
    raise ValueError(f"no profile of {preset}, batch {batch}, {way!r}; run make gpu-check on a GPU")


def compare(shapes: Sequence[Shape], preset: str, folder: Path = MEASURED) -> list[str]:
    """Return a line for every measured kernel and each of its forms: computed and measured microseconds, their ratio.

    Which form was measured is that of the record's commit: the older one, where there are two.
    """
    lines = []
    timed = {
        (row["kernel"], row["shape"], row["batch"]): row["time"]["p50"] * 1e3
        for row in records.read(folder / "kernels_timed.json")["rows"]
        if row.get("ptxas") != "other"
    }
    for (kernel, key, batch), measured in timed.items():
        shape = next((shape for shape in shapes if shape.key == key), None)
        if shape is not None:
            module = next(module for module in registry.MODULES if registry.name(module) == kernel)
            times: dict[str, float] = {}
            for row in traces(module, shape, "sm_90", batch):
                times[row.form] = times.get(row.form, 0.0) + row.microseconds
            lines += [_line(f"{kernel} {form} {key} batch {batch}", time, measured) for form, time in times.items()]
    rows = [row for shape in shapes for row in chain_traces(shape)]
    profile, _ = profile_of(preset, 1, folder=folder)
    for (kernel, _), computed in model_microseconds(rows, preset).items():
        if kernel in profile:
            lines.append(_line(f"{kernel}, in the image graph of {preset}", computed, profile[kernel]))
    return lines


def _line(name: str, computed: float, measured: float) -> str:
    return f"{name:58}{computed:9.1f} us computed{measured:9.1f} us measured{computed / measured:7.2f}"


# PyTorch's kernels around SVLA that are no longer launched, by the start of their names in a profile.  Of its matrix
# products the profile lists the longest kind only, so all others count as if they stayed.
NATIVE = "void at::native::"
AROUND_SVLA = (
    f"{NATIVE}batch_norm_transform_input",
    "conv2d_c1_k1_nchw",
    "void at::native::vectorized_elementwise_kernel<8, at::native::Gelu",
    "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add",
    "nvjet_sm90_hsh",
)


def changes(preset: str, image_size: int = 512) -> list[Change]:
    """Compute what the new kernels need, in the order in which they came, at batch 1."""
    shapes = stage_shapes(preset, image_size)
    svla = model_microseconds((row for shape in shapes for row in chain_traces(shape)), preset, image_size)
    times = {kernel: time for (kernel, _), time in svla.items()}
    depths = PRESETS[preset].depths
    around: dict[str, float] = {}
    for shape, depth in zip(rest_shapes(preset, image_size), depths, strict=True):
        for row in chain_traces(shape):
            count = 1 if row.kernel == "stage_norm_kernel" else depth
            around[row.kernel] = around.get(row.kernel, 0.0) + count * row.microseconds
    norm = around.pop("stage_norm_kernel")
    joins = ("fold_keys_kernel", "fold_values_kernel", "gate_mix_kernel")
    small = ("query_statistics_kernel", "token_attention_kernel", "gate_kernel", "mix_kernel")
    return [
        Change("statistics joined from one load", joins, sum(times[name] for name in joins)),
        Change("operands of the depthwise products loaded at once", ("depthwise_kernel",), times["depthwise_kernel"]),
        Change("smaller tiles, deeper pipelines", small, sum(times[name] for name in small)),
        Change("BatchNorm, scales, GELU and shortcuts in the 1x1s and the 3x3", AROUND_SVLA, sum(around.values())),
        Change(
            "LayerNorm at the end of a stage, channels first",
            (f"{NATIVE}(anonymous namespace)::vectorized_layer",),
            norm,
        ),
    ]


def changes_record(preset: str) -> records.Record:
    """Return what each change is worth in the image graph, at batch 1 and 512x512."""
    profile, total = profile_of(preset, 1)
    found = worth(profile, total, changes(preset))
    rows = [{"change": "measured", "launched before, us": 0.0, "launched now, us": 0.0, "image graph, us": total}]
    rows += [
        {"change": one.name, "launched before, us": round(one.removed, 1), "launched now, us": round(one.added, 1),
         "image graph, us": round(one.graph, 1)}
        for one in found
    ]  # fmt: skip
    measured = records.read(MEASURED / "shares.json")["versions"]["triton"]
    what = (
        f"GPU time of the image graph of {preset}, 512x512, batch 1: measured on an NVIDIA H200 with Triton "
        f"{measured}, and what the changes since then are worth by the latency model (computed, not measured) for code "
        f"of Triton {version('triton')}; the model was never compared with a measurement of the kernels around SVLA "
        "(1x1s, 3x3, LayerNorm)"
    )
    return records.record_of(records.ESTIMATE, ("triton",), what=what, rows=rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="base", help="(default: %(default)s)")
    parser.add_argument("--changes", action="store_true", help="say what each change is worth, instead")
    records.add_output_options(parser)
    options = parser.parse_args(argv)
    if options.changes:
        record = changes_record(options.preset)
        records.put(record, rows_table(record), options)
        return
    for line in compare(stage_shapes(options.preset, 512), options.preset):
        print(line)


if __name__ == "__main__":
    main()
