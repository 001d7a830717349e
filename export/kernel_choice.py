"""The kernels of a TensorRT engine: stock operations, or ours as plugins if asked for or measured faster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from lsms_rt.engine import open_backend
from lsms_rt.engine.tensorrt.variant import TensorRtVariant, load, parse_version
from lsms_rt.errors import InputError, LsmsError, brief
from lsms_rt.machine.gpu import query_driver

from .auto import WORTH, timed
from .directory import Draft
from .options import BuildOptions, PlanOptions

# TensorRT's Python plugins compiled ahead of time; those of 10.14 are broken.
MIN_VERSION_FOR_PLUGINS = (10, 15)
# Runs of each that are timed; a run takes milliseconds.
ROUNDS = 30
# The graphs of an engine, and the engine.
Made = tuple[Draft, Draft]


def chosen_kernels(options: BuildOptions) -> str:
    """Return the kernels to build with: "triton", "stock", or "auto": both, and :func:`faster` keeps one.

    Raises:
        InputError: "triton" is requested and something it needs is missing.
    """
    if options.kernels == "stock":
        return "stock"
    missing = no_plugins(options.variant, options.precision, options.plan)
    if options.kernels == "auto":
        return "stock" if missing or not options.verify_slices else "auto"
    if missing:
        raise InputError(f"--kernels triton: {missing}; use --kernels stock")
    return "triton"


def no_plugins(variant: TensorRtVariant | None, precision: str, options: PlanOptions) -> str | None:
    """Return why an engine cannot have our kernels as plugins; None if it can."""
    if variant is None or variant.portable:
        return "only TensorRT takes plugins"
    if precision != "fp16":
        return "the plugins are for --precision fp16"
    if options.hardware == "ampere+" or options.version_compatible:
        return "plugins are compiled for this GPU and version, not for --hardware ampere+ or --version-compatible"
    version = parse_version(load(variant).__version__)
    if version < MIN_VERSION_FOR_PLUGINS:
        needed, installed = (".".join(map(str, v)) for v in (MIN_VERSION_FOR_PLUGINS, version))
        return f"plugins need TensorRT {needed}, this is {installed}"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    from lsms_rt import kernels

    missing = kernels.missing()
    if missing:
        return missing
    from lsms_rt.kernels.aot import TARGETS

    arch = query_driver().gpus[0].arch
    return None if arch in TARGETS else f"the kernels are compiled for {', '.join(TARGETS)}, not for {arch}"


def not_compared(options: BuildOptions) -> str:
    """Return why ``--kernels auto`` builds stock operations only."""
    missing = no_plugins(options.variant, options.precision, options.plan)
    return missing or "--verify-slices 0 compares no answers, and times count only after them"


def faster(
    stock: Made, with_plugins: Callable[[], tuple[Made, dict[str, float]]], batch: int, say: Callable[[str], None]
) -> Made:
    """Build with our kernels too, and return what runs faster on this GPU: stock, unless they gain enough.

    Args:
        stock: the graphs and the engine of stock operations, whose answers were compared.
        with_plugins: builds the others, compares their answers, and returns them with the :func:`times` of both; in a
            process of its own, since a kernel that fails takes the whole CUDA context with it.
        batch: the batch that was timed.
        say: called with what was chosen.

    Returns:
        The graphs and the engine; its manifest records both times and the reason.
    """
    graphs, engine = stock
    if engine.not_run:
        return graphs, noted(engine, f"not compared: {engine.not_run}", say)
    try:
        ours, ms = with_plugins()
    # A wrong answer among them; whatever it is, there is a right engine without plugins.
    except LsmsError as error:
        return graphs, noted(engine, f"the comparison with plugins failed: {brief(str(error), 300)}", say)
    if ms["triton"] <= WORTH * ms["stock"]:
        graphs, engine = ours
    why = f"stock {ms['stock']:.2f}, triton {ms['triton']:.2f} ms a slice in batches of {batch} on this GPU"
    return graphs, noted(engine, f"{why}; triton at {WORTH:.0%} or less", say, ms_per_slice=ms, batch=batch)


def noted(engine: Draft, why: str, say: Callable[[str], None], **measured: Any) -> Draft:
    """Say which kernels an engine has and why, and record it in its manifest."""
    say(f"kernels: {engine.manifest.kernels} ({why})")
    record = {"why": why} | measured
    return engine.noted(plan_options=engine.manifest.plan_options | {"kernels": record})


def times(stock: Draft, ours: Draft, batch: int) -> dict[str, float]:
    """Return ms per slice of an engine of stock operations and of one with plugins, run in turns."""
    opened = {}
    try:
        for name, engine in (("stock", stock), ("triton", ours)):
            opened[name] = open_backend(engine.open())
        return timed(opened, stock.manifest, batch, ROUNDS)
    finally:
        for backend in opened.values():
            backend.close()
