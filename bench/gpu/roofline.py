"""Compute floors: the minimum time of every launch from its bytes and operations, fused and unfused, for several GPUs.

``python -m lsms_rt.bench.gpu.roofline`` prints the table; ``-o`` and ``--picture`` write it.  Nothing is measured.
The floor of a launch is the larger of its bytes over the bandwidth and its operations over the peak of the unit that
does them; the floor of a sequence adds the launches, and a ``gap`` between any two of them in a CUDA graph.  Beside it
stands the least latency of the sequence: launches that only start and load one value.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt.bench import style
from lsms_rt.bench.records import ROOFLINE, add_output_options, put, record_of
from lsms_rt.kernels import depthwise, registry
from lsms_rt.kernels.shape import DecoderShape, RestShape, Shape, image_side, stage_shapes
from lsms_rt.model.config import PRESETS, LsmsConfig

# Taps per pixel of the 5x5 and of all strips.
TAPS = 25 + 2 * (7 + 11 + 21)
WIDTH = {"fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Gpu:
    """The ceilings of a GPU: vendors' figures, except for ``l2`` and ``gap``.

    Attributes:
        name: Name of the GPU.
        dram: Bandwidth of DRAM in bytes/s.
        l2: Bandwidth of the L2 cache in bytes/s, which no vendor states: for the H100 that of public microbenchmarks,
            for the others the same multiple of DRAM's.
        l2_bytes: Size of the L2 cache.
        tensor: Peak of the tensor cores in dense operations/s.
        scalar: Peak of the other units in operations/s.
        gap: Minimum pause in seconds between two dependent kernels in a graph: measured on an H200 for it and the H100,
            which has the same processors; else an assumption.
        load: Seconds from the start of a kernel to the first data from the L2 cache, without which it can do nothing:
            fitted to kernels measured on an H200 (``kernels/latency.py``), else as many cycles at the GPU's own clock.
    """

    name: str
    dram: float
    l2: float
    l2_bytes: float
    tensor: float
    scalar: float
    gap: float
    load: float = 0.33e-6


GPUS = {
    "h100": Gpu("H100 SXM", 3.35e12, 5.5e12, 50e6, 989e12, 66.9e12, 0.67e-6),
    "orin": Gpu("Jetson AGX Orin", 204.8e9, 340e9, 4e6, 42.5e12, 5.3e12, 3e-6, 0.5e-6),
    "thor": Gpu("Jetson AGX Thor", 273e9, 450e9, 32e6, 258e12, 8.1e12, 2e-6, 0.41e-6),
}

# Known to ``check.py``, but not in the table; the name of a device must contain all words of the key.
MORE_GPUS = {
    "h200": Gpu("H200 SXM", 4.8e12, 5.5e12, 50e6, 989e12, 66.9e12, 0.67e-6),
    "h100 pcie": Gpu("H100 PCIe", 2.0e12, 3.8e12, 50e6, 756e12, 51.2e12, 0.67e-6, 0.37e-6),
}


@dataclass(frozen=True)
class Step:
    """One launch: bytes read and written, necessary multiply-adds, and whether they run on the tensor cores."""

    name: str
    bytes: float
    macs: float
    tensor: bool = True

    def floor(self, gpu: Gpu, resident: bool) -> float:
        """Return seconds; ``resident`` if everything the block uses stays in the L2 cache."""
        rate = gpu.tensor if self.tensor else gpu.scalar
        return max(self.bytes / (gpu.l2 if resident else gpu.dram), 2 * self.macs / rate)


@dataclass(frozen=True)
class Sizes:
    """The pixels of a block, and the bytes of a map, a C x C weight, token rows (T, C), token weights p and moments."""

    pixels: int
    map: int
    weight: int
    rows: int
    p: int
    moments: int


def sizes(shape: Shape, batch: int) -> Sizes:
    e, c, t = WIDTH[shape.dtype], shape.channels, shape.tokens
    pixels = batch * shape.pixels
    return Sizes(pixels, pixels * c * e, c * c * e, batch * t * c * e, pixels * t * e, batch * shape.chunks * 2 * c * 4)


def fused(shape: Shape, batch: int, chain: str | None = None) -> list[Step]:
    """Return the launches of our kernels with their necessary multiply-adds, without the zeros of a band.

    ``chain`` is one of ``registry.CHAINS``, or None for that of this GPU.
    """
    if isinstance(shape, RestShape):
        end = Step("stage_norm", 2 * sizes(shape, batch).map, 0)
        return [*rest_of_block(shape, batch, shape.ratio), end]
    if isinstance(shape, DecoderShape):
        z = sizes(shape, batch)
        # One element of each smaller map is read for 4, 16 and 64 results; an interpolation is three multiply-adds.
        return [Step("merge_scales", (2 + 1 / 4 + 1 / 16 + 1 / 64) * z.map, 9 * shape.channels * z.pixels, False)]
    z, c, t = sizes(shape, batch), shape.channels, shape.tokens
    banded = dict(depthwise.launch(shape).constants) if shape.dtype == "fp16" else {}
    tables = c * 11 * 32 * WIDTH[shape.dtype] * (8 if banded.get("VECTOR") else 1)
    token = batch * t * c * c
    table = {
        "depthwise": Step("depthwise", 3 * z.map + tables, TAPS * c * z.pixels),
        "depthwise_direct": Step("depthwise_direct", 15 * z.map, TAPS * c * z.pixels, tensor=False),
        "query_statistics": Step("query_statistics", z.map + z.weight + z.moments, c * c * z.pixels),
        "fold_keys": Step("fold_keys", z.moments + z.weight + 2 * z.rows, token),
        "token_attention": Step("token_attention", z.map + 2 * z.rows + z.p + z.moments, 2 * t * c * z.pixels),
        "fold_attention": Step(
            "fold_attention", z.map + z.weight + 2 * z.rows + z.p + 2 * z.moments, token + 2 * t * c * z.pixels
        ),
        "fold_values": Step("fold_values", z.moments + z.weight + 3 * z.rows, token),
        "gate": Step("gate", 2 * z.map + z.p + z.weight + 2 * z.rows, (c * c + 2 * t * c) * z.pixels),
        "mix": Step("mix", 3 * z.map + z.weight, c * c * z.pixels),
        "gate_mix": Step(
            "gate_mix", 3 * z.map + z.p + 3 * z.weight + z.rows + z.moments, (3 * c * c + t * c) * z.pixels
        ),
    }
    return [table[registry.name(module)] for module in registry.chain(shape, chain)]


def executed_macs(shape: Shape) -> float:
    """Count the multiply-adds of the banded depthwise kernel for one image, with zeros and overlaps."""
    launch = depthwise.launch(shape)
    rows, columns = launch.constants["ROWS"], launch.constants["COLS"]
    window = 5 * rows * columns**2 + 3 * (rows**2 * columns + rows * columns**2)
    return float(window * launch.grid[0] * launch.grid[1])


def unfused(shape: Shape, batch: int) -> list[Step]:
    """Return one launch per operation of the block's definition, as PyTorch runs it; convolutions add the bias."""
    z, c, t = sizes(shape, batch), shape.channels, shape.tokens
    pixels = z.pixels
    steps = [Step("5x5", 2 * z.map, 25 * c * pixels, tensor=False)]
    for n in (7, 11, 21):
        steps += [
            Step(f"1x{n}", 2 * z.map, n * c * pixels, tensor=False),
            Step(f"{n}x1", 2 * z.map, n * c * pixels, False),
        ]
        steps.append(Step("add", 3 * z.map, 0))
    product, norm = Step("1x1", 2 * z.map + z.weight, c * c * pixels), Step("InstanceNorm", 3 * z.map, 0)
    steps += [product, norm, Step("scores", z.map + z.rows + z.p, t * c * pixels), Step("scale and mask", 4 * z.p, 0)]
    steps += [Step("softmax", 2 * z.p, 0), Step("values", z.p + z.rows + z.map, t * c * pixels), product, norm]
    steps += [product, Step("ReLU", 2 * z.map, 0), product, Step("tanh", 2 * z.map, 0), Step("gate", 3 * z.map, 0)]
    return [*steps, Step("add", 3 * z.map, 0), product, Step("times x", 3 * z.map, 0)]


def block_floor(steps: Sequence[Step], gpu: Gpu, shape: Shape, batch: int) -> float:
    """Return the seconds of a sequence of launches; a block works on five maps, which may fit the L2 cache."""
    resident = 5 * sizes(shape, batch).map < gpu.l2_bytes
    return sum(step.floor(gpu, resident) for step in steps) + len(steps) * gpu.gap


def latency_floor(steps: Sequence[Step], gpu: Gpu) -> float:
    """Return the least seconds of a sequence of launches that do nothing: a gap and one load for each of them.

    Kept apart from ``block_floor``, which bytes and operations decide: a measurement far above both has a chain of
    dependent loads and barriers inside its kernels (``python -m lsms_rt.kernels.ptx_trace`` counts them).
    """
    return len(steps) * (gpu.gap + gpu.load)


def rest_of_block(shape: Shape, batch: int, ratio: int) -> list[Step]:
    """Return the rest of a block as our kernels run it: 1x1 + GELU, 1x1 + shortcuts, and the three of the MLP."""
    z, c = sizes(shape, batch), shape.channels
    wide = ratio * z.map
    return [
        Step("inner", 2 * z.map + z.weight, c * c * z.pixels),
        Step("outer", 3 * z.map + z.weight, c * c * z.pixels),
        Step("expand", z.map + wide + ratio * z.weight, ratio * c * c * z.pixels),
        Step("depthwise3_gelu", 2 * wide, 9 * ratio * c * z.pixels, tensor=False),
        Step("reduce", 2 * z.map + wide + ratio * z.weight, ratio * c * c * z.pixels),
    ]


def decoder(config: LsmsConfig, image_size: int, batch: int, dtype: str = "fp16") -> list[Step]:
    """Return the launches of the decoder: projections, attention inside cells and across them, merging and the head."""
    e, d = WIDTH[dtype], config.decoder_width
    cells = batch * (image_size // 32) ** 2
    tokens, pooled, fine = 85 * cells, 4 * cells, batch * (image_size // 4) ** 2
    maps = sum(c * batch * (image_size // s) ** 2 for c, s in zip(config.dims, (4, 8, 16, 32), strict=True))
    project = sum(c * d * batch * (image_size // s) ** 2 for c, s in zip(config.dims, (4, 8, 16, 32), strict=True))
    return [
        Step("project", (maps + tokens * d) * e, project),
        Step("inside: q, k, v", 4 * tokens * d * e, 3 * tokens * d * d),
        Step("inside: attention", 4 * tokens * d * e, 2 * 85 * tokens * d),
        Step("inside: output", 3 * tokens * d * e, tokens * d * d),
        Step("across", 12 * pooled * d * e, 4 * pooled * d * d + 2 * (pooled // batch) * pooled * d),
        Step("merge", (tokens + fine) * d * e, tokens * d * d),
        Step("fuse", 2 * fine * d * e, 9 * fine * d * d // 2),
        Step("predict", fine * d * e // 2 + 16 * fine * e, fine * d // 2),
    ]


def image_graph_floor(preset: str, image_size: int, batch: int, gpu: Gpu, dtype: str = "fp16") -> float:
    """Seconds of the whole image graph, our kernels in every block: a bound to compare measurements with."""
    config, total, previous = PRESETS[preset], 0.0, 0
    for shape, depth, ratio in zip(
        stage_shapes(preset, image_size, dtype), config.depths, config.mlp_ratios, strict=True
    ):
        steps = [*fused(shape, batch), *rest_of_block(shape, batch, ratio)]
        total += depth * block_floor(steps, gpu, shape, batch)
        z = sizes(shape, batch)
        # The stem's first convolution is small beside its second.
        source = previous or 9 * config.in_channels
        ends = [Step("downsample", 3 * z.map, 9 * source * shape.channels * z.pixels), Step("LayerNorm", 2 * z.map, 0)]
        total += block_floor(ends, gpu, shape, batch)
        previous = shape.channels
    steps = decoder(config, image_size, batch, dtype)
    return total + block_floor(steps, gpu, stage_shapes(preset, image_size, dtype)[0], batch)


def floors(
    presets: Sequence[str], image_size: int, batches: Sequence[int], dtype: str = "fp16"
) -> list[dict[str, Any]]:
    """A row for every preset, stage, batch and GPU; microseconds, megabytes (1e6) and 1e9 multiply-adds."""
    rows = []
    for preset in presets:
        for stage, shape in enumerate(stage_shapes(preset, image_size, dtype), 1):
            for batch in batches:
                ours, plain = fused(shape, batch), unfused(shape, batch)
                for name, gpu in GPUS.items():
                    times = [block_floor(steps, gpu, shape, batch) * 1e6 for steps in (ours, plain)]
                    latencies = [latency_floor(steps, gpu) * 1e6 for steps in (ours, plain)]
                    rows.append(
                        {
                            "preset": preset, "stage": stage, "batch": batch, "gpu": name, "shape": shape.key,
                            "map_mb": round(sizes(shape, batch).map / 1e6, 2),
                            "fused_launches": len(ours), "unfused_launches": len(plain),
                            "fused_mb": round(sum(s.bytes for s in ours) / 1e6, 2),
                            "unfused_mb": round(sum(s.bytes for s in plain) / 1e6, 2),
                            "fused_gmac": round(sum(s.macs for s in ours) / 1e9, 3),
                            "banded_gmac": round(executed_macs(shape) * batch / 1e9, 3),
                            "unfused_gmac": round(sum(s.macs for s in plain) / 1e9, 3),
                            "fused_us": round(times[0], 1), "unfused_us": round(times[1], 1),
                            "fused_latency_us": round(latencies[0], 1), "unfused_latency_us": round(latencies[1], 1),
                        }
                    )  # fmt: skip
    return rows


def draw(rows: list[dict[str, Any]], preset: str, path: Path) -> None:
    """Draw bars of the floor of a block, fused and unfused, by stage; one row per batch, one column per GPU."""
    batches = sorted({row["batch"] for row in rows})
    figure = style.new_figure(10, 5.5)
    axes = figure.subplots(len(batches), len(GPUS), squeeze=False)
    for i, batch in enumerate(batches):
        for j, (name, gpu) in enumerate(GPUS.items()):
            part = [r for r in rows if (r["preset"], r["batch"], r["gpu"]) == (preset, batch, name)]
            axis = axes[i][j]
            for shift, key, color in ((-0.2, "unfused_us", style.OTHERS), (0.2, "fused_us", style.OURS)):
                x = [row["stage"] + shift for row in part]
                bars = axis.bar(x, [row[key] for row in part], 0.4, color=color, label=key.removesuffix("_us"))
                axis.bar_label(bars, fmt="%.0f", fontsize=7)
            axis.set_title(f"{gpu.name}, batch {batch}", fontsize=9)
            axis.set_xticks([1, 2, 3, 4], [f"stage {n}" for n in range(1, 5)], fontsize=7)
            axis.tick_params(axis="y", labelsize=7)
            style.open_frame(axis)
            axis.set_ylabel("floor of a block, us" if j == 0 else "", fontsize=8)
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(
        f"Minimum time of one SVLA block, preset {preset}, 512x512, fp16: computed, not measured", fontsize=10
    )
    style.save(figure, path, dpi=110)


FORMATS = (("mb", 1), ("gmac", 2), ("us", 0), ("latency_us", 0))


def table(rows: list[dict[str, Any]]) -> str:
    """Return one line per row, with fused/unfused values."""
    columns = ("preset", "stage", "batch", "gpu", "map MB", "launches", "MB", "GMAC", "floor us", "latency us", "ratio")
    widths = (7, 6, 6, 6, 8, 10, 14, 14, 14, 14, 7)
    lines = ["".join(name.rjust(width) for name, width in zip(columns, widths, strict=True))]
    for r in rows:
        cells = [r["preset"], r["stage"], r["batch"], r["gpu"], f"{r['map_mb']:.2f}"]
        cells.append(f"{r['fused_launches']}/{r['unfused_launches']}")
        cells += [f"{r[f'fused_{k}']:.{d}f}/{r[f'unfused_{k}']:.{d}f}" for k, d in FORMATS]
        cells.append(f"{r['unfused_us'] / r['fused_us']:.1f}")
        lines.append("".join(str(cell).rjust(width) for cell, width in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset",
        nargs="+",
        choices=list(PRESETS),
        default=["tiny", "base"],
        help="small and large have base's shapes (default: %(default)s)",
    )
    parser.add_argument(
        "--image-size", type=image_side, default=512, help="side of the input, a multiple of 32 (default: %(default)s)"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16], help="slices per call (default: %(default)s)")
    add_output_options(parser)
    parser.add_argument("--picture", type=Path, help="PNG to write, of the last preset (default: none)")
    options = parser.parse_args(argv)
    rows = floors(options.preset, options.image_size, options.batch)
    lines = [
        "fused/unfused, for one SVLA block; computed from bytes, operations and ceilings, not measured",
        table(rows),
    ]
    for preset in options.preset:
        for name, gpu in GPUS.items():
            times = ", ".join(
                f"{image_graph_floor(preset, options.image_size, b, gpu) * 1e3:.2f} ms (batch {b})"
                for b in options.batch
            )
            lines.append(f"image graph, {preset}, {name}: {times}")
    ceilings = {name: vars(gpu) for name, gpu in GPUS.items()}
    record = record_of(ROOFLINE, (), what="floors of one SVLA block, computed", ceilings=ceilings, rows=rows)
    put(record, "\n".join(lines), options)
    if options.picture:
        draw(rows, options.preset[-1], options.picture)


if __name__ == "__main__":
    main()
