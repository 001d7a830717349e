"""What ``make gpu-check`` runs: units, their order and their limits.

What is worth most comes first, because the time may end anywhere.  Nothing here imports PyTorch.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsms_rt.kernels.shape import STRIDES, stage_shapes
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS

# The kernels' modules (``kernels.registry``, which needs PyTorch), in the order in which a block launches them.
KERNELS = (
    "depthwise", "depthwise_direct", "query_statistics", "fold_keys", "token_attention",
    "fold_attention", "fold_values", "gate", "mix", "gate_mix",
    "inner", "outer", "expand", "depthwise3_gelu", "reduce", "stage_norm", "merge_scales",
)  # fmt: skip
# Those around SVLA: no plugins, and they see no tokens.
AROUND = KERNELS[-7:]
# Section -> seconds of a run of SECONDS, and what it does.
SECTIONS: dict[str, tuple[int, str]] = {
    "environment": (15, "driver, versions, and one small kernel through Triton's compiler and launcher"),
    "verify": (60, "every kernel of the timed models, the block and the runner against float64"),
    "plugins": (25, "the PTX that TensorRT's plugins get, loaded and launched by the driver"),
    "models": (125, "the image graph: ours and PyTorch, in several ways"),
    "kernels": (60, "every kernel alone in a CUDA graph, beside its floor"),
    "parts": (80, "the depthwise part and the block of every stage, beside PyTorch"),
    "ptxas": (50, "kernels verified and timed again, assembled by another ptxas"),
    "sanitizer": (50, "memcheck, racecheck and synccheck of compute-sanitizer at small shapes"),
    "rest": (75, "other sizes, types and tokens; the TensorRT runtime; torch.compile with autotuning"),
}
SECONDS = sum(seconds for seconds, _ in SECTIONS.values())
SIZE = 512
# Image sizes beside it: odd maps, several windows, one window.
OTHER_SIZES = (256, 384, 640, 224, 480)
# Runs of a kernel that must all give the same bits: none has atomics, so a difference is a race.
REPEATS = 30


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Work for one process: when it dies, nothing else is lost.

    Attributes:
        section: one of ``SECTIONS``.
        name: its name in the section.
        function: ``module:function``; the function yields rows.
        arguments: its keyword arguments, in JSON's types.
        limit: seconds it may take; a unit that takes longer hangs.
        least: seconds below which it is not worth starting.
        parallel: whether it may run beside other units; what is timed may not.
        prefix: a command that runs the process.
        variables: its environment variables, beside those of the parent.
        cache: name of its compilers' cache; units that share it find what others compiled.
        mark: fields that each of its rows gets.
        absent: why it cannot run on this machine; None if it can.
        unsupported: words that ``prefix`` prints if it does not work on this machine.
    """

    section: str
    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 60
    least: float = 6
    parallel: bool = False
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    cache: str = "own"
    mark: Mapping[str, Any] = field(default_factory=dict)
    absent: str | None = None
    unsupported: str = ""


def plan(sections: Iterable[str], presets: Sequence[str]) -> list[Unit]:
    """Return the units of some sections in the order to run them; the first preset is worth most."""
    makers: dict[str, Callable[[Sequence[str]], Iterator[Unit]]] = {
        "environment": _environment, "verify": _verify, "plugins": _plugins, "models": _models, "kernels": _kernels,
        "parts": _parts, "ptxas": _other_ptxas, "sanitizer": _sanitizer, "rest": _rest,
    }  # fmt: skip
    wanted = set(sections)
    return [unit for section in SECTIONS if section in wanted for unit in makers[section](presets)]


def described(units: Iterable[Unit]) -> str:
    """Return the plan in words, one line per section."""
    lines = []
    for section, group in itertools.groupby(units, lambda unit: unit.section):
        seconds, what = SECTIONS[section]
        lines.append(f"{section:12} {len(list(group)):4} units {seconds:4} s  {what}")
    return "\n".join(lines)


def _unit(section: str, name: str, function: str, **fields: Any) -> Unit:
    known = {name: fields.pop(name) for name in list(fields) if name in Unit.__dataclass_fields__}
    return Unit(section=section, name=name, function=f"lsms_rt.bench.gpu.{function}", arguments=fields, **known)


def _environment(_: Sequence[str]) -> Iterator[Unit]:
    yield _unit("environment", "environment", "environment:environment", limit=60, least=1)


def _verify(presets: Sequence[str]) -> Iterator[Unit]:
    for preset, kernel in itertools.product(presets, KERNELS):
        yield _verified("verify", kernel, [preset], name=f"{kernel}, {preset}", batches=[1, 2])
    for preset in presets:
        yield _unit(
            "verify", f"block, {preset}", "verify:block_unit", preset=preset, size=SIZE, dtype="fp16", parallel=True
        )
    yield _unit("verify", "runner", "verify:runner_unit", parallel=True)


def _verified(
    section: str, kernel: str, presets: Sequence[str], *, name: str, sizes: Sequence[int] = (SIZE,),
    dtype: str = "fp16", tokens: int = OWN_TOKENS, batches: Sequence[int] = (1,), limit: float = 90,
) -> Unit:  # fmt: skip
    return _unit(
        section, name, "verify:kernel_unit", kernel=kernel, presets=list(presets), sizes=list(sizes), dtype=dtype,
        tokens=tokens, batches=list(batches), repeats=REPEATS, parallel=True, limit=limit,
    )  # fmt: skip


def _plugins(presets: Sequence[str]) -> Iterator[Unit]:
    # ``depthwise_direct`` launches several kernels; neither it nor those around SVLA are plugins.
    for kernel in (name for name in KERNELS if name not in ("depthwise_direct", *AROUND)):
        yield _unit(
            "plugins", kernel, "plugin_ptx:kernel_unit", kernel=kernel, presets=list(presets), size=SIZE, parallel=True
        )


# The image graph in several ways: those that cost no compilation first (``models.WAYS``).
QUICK_WAYS = ("ours", "stock_graph", "stock_graph_channels_last", "eager")
# What a GPU has not judged yet, at batch 1.
PARTS_OF_OURS = ("ours_folded_decoder",)
COMPILED_WAYS = ("compiled", "ours_compiled_rest")


def _models(presets: Sequence[str]) -> Iterator[Unit]:
    for batch, preset in itertools.product((1, 8), presets):
        for way in (*QUICK_WAYS, *(PARTS_OF_OURS if batch == 1 else ())):
            yield _model("models", preset, batch, way, limit=60)
        # torch.compile of an encoder takes half a minute to minutes: first the one that is compared most.
        if (batch, preset) == (1, presets[0]):
            yield _model("models", preset, batch, "compiled", limit=180, least=30)
            yield _unit("models", f"share of the blocks, {preset}", "models:share_unit", preset=preset, size=SIZE)
    for preset, way in itertools.product(presets, COMPILED_WAYS):
        if (preset, way) != (presets[0], "compiled"):
            yield _model("models", preset, 1, way, limit=180, least=30)


def _model(section: str, preset: str, batch: int, way: str, **limits: Any) -> Unit:
    name = f"{way}, {preset}, batch {batch}"
    return _unit(section, name, "models:model_unit", preset=preset, size=SIZE, batch=batch, way=way, **limits)


def _kernels(presets: Sequence[str], section: str = "kernels", **fields: Any) -> Iterator[Unit]:
    if section == "kernels":
        yield _unit(section, "ceilings", "times:ceilings_unit")
    for kernel in KERNELS:
        yield _unit(
            section, f"{kernel}, time" if fields else kernel, "times:kernel_unit", kernel=kernel,
            presets=list(presets), size=SIZE, batches=[1, 8], **fields,
        )  # fmt: skip


def _parts(presets: Sequence[str]) -> Iterator[Unit]:
    stages = range(len(STRIDES))
    for preset, stage in itertools.product(presets, stages):
        yield _part("parts", preset, stage, None)
    for preset, stage in itertools.product(presets, stages):
        yield _part("parts", preset, stage, "default", least=15)


def _part(section: str, preset: str, stage: int, compiler: str | None, **limits: float) -> Unit:
    name = f"{stage_shapes(preset, SIZE)[stage].key}, {f'torch.compile {compiler}' if compiler else 'not compiled'}"
    arguments = {"preset": preset, "size": SIZE, "stage": stage, "batch": 1, "compiler": compiler}
    return _unit(section, name, "parts:part_unit", **arguments, **{"limit": 120, **limits})


def other_ptxas() -> str | None:
    """Return the path of an assembler beside the one that Triton brings; None if there is none."""
    known = Path("/usr/local/cuda/bin/ptxas")
    return str(known) if known.is_file() else shutil.which("ptxas")


def _other_ptxas(presets: Sequence[str]) -> Iterator[Unit]:
    path = other_ptxas()
    # A cache of its own: the assembler is not part of the key of Triton's.
    fields: dict[str, Any] = {
        "variables": {"TRITON_PTXAS_PATH": path or ""},
        "cache": "other",
        "mark": {"ptxas": "other"},
        "absent": None if path else "only Triton's own ptxas is available; install the CUDA toolkit",
    }
    for kernel in KERNELS:
        yield replace(_verified("ptxas", kernel, presets, name=f"{kernel}, verification"), **fields)
    yield from _kernels(presets[:1], "ptxas", **fields)


def _sanitizer(_: Sequence[str]) -> Iterator[Unit]:
    tool = shutil.which("compute-sanitizer")
    for check in ("memcheck", "racecheck", "synccheck"):
        yield _unit(
            "sanitizer", check, "sanitizer:small_unit", check=check, limit=150, least=20, parallel=True,
            prefix=(tool or "compute-sanitizer", "--tool", check, "--error-exitcode", "86", "--target-processes",
                    "application-only"),
            # An allocation per tensor, so that an access beside one is seen.
            variables={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, unsupported="Device not supported",
            absent=None if tool else "compute-sanitizer is not on the PATH; it comes with the CUDA toolkit",
        )  # fmt: skip


def _rest(presets: Sequence[str]) -> Iterator[Unit]:
    yield _unit("rest", "driver calls and a captured graph", "runtime:driver_unit", limit=30)
    settings: list[tuple[str, dict[str, Any]]] = [
        ("T 64", {"tokens": MAX_TOKENS}), ("T 16", {"tokens": 16}), ("batch 4", {"batches": [4]}),
        ("fp32", {"dtype": "fp32"}), ("other sizes", {"sizes": OTHER_SIZES, "limit": 240}),
    ]  # fmt: skip
    for (words, changed), kernel in itertools.product(settings, KERNELS):
        if kernel in AROUND and "tokens" in changed:
            continue
        yield _verified("rest", kernel, presets, name=f"{kernel}, {words}", **changed)
    for preset in presets:
        yield _unit(
            "rest", f"block, {preset}, fp32", "verify:block_unit", preset=preset, size=SIZE, dtype="fp32", parallel=True
        )
    for variant in ("tensorrt", "tensorrt-rtx"):
        yield _unit("rest", f"engine, {variant}", "runtime:engine_unit", variant=variant, limit=300, least=30)
    yield _unit("rest", "engine with plugins", "runtime:plugins_unit", limit=600, least=60)
    for preset in presets:
        for way in COMPILED_WAYS:
            yield _model("rest", preset, 8, way, limit=240, least=30)
        for way in QUICK_WAYS:
            yield _model("rest", preset, 32, way)
    for stage in (0, 2):
        # Without CUDA graphs, because the stopwatch captures them.
        yield _part("rest", presets[0], stage, "max-autotune-no-cudagraphs", limit=300, least=40)
    yield _model("rest", presets[0], 1, "compiled_max_autotune", limit=600, least=120)
