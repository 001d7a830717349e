"""Which build of an engine is the fastest on a machine, for ``doctor``; ``build-engine --backend auto`` measures it.

An order among backends belongs to none of them, so this module names them; it asks their rows nothing but what
``diagnose`` reports.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lsms_rt.machine.cpu import Cpu
from lsms_rt.machine.gpu import Driver

Reports = Mapping[str, Mapping[str, Any]]
"""Name of a backend -> what its ``diagnose`` reports"""
# Of a series, preset tiny, two cores of an AMD EPYC (Zen 5); other CPUs differ.
MEASURED = "times the speed of ONNX Runtime, measured on an AMD EPYC"


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build for a machine.

    Attributes:
        backend: as ``build-engine --backend`` names it.
        precision: as ``build-engine --precision`` names it.
        reason: why it is fast here, in words.
        worth_installing: whether it gains enough to install the backend for it.
        from_engine: whether it can be made of an engine, e.g. demo, without a checkpoint and PyTorch.
    """

    backend: str
    precision: str
    reason: str
    worth_installing: bool = True
    from_engine: bool = False

    @property
    def command(self) -> str:
        """The command that makes it, of an engine where that is enough."""
        source = "--from ENGINE" if self.from_engine else "--checkpoint DIR"
        recipe = " --calibration DIR" if self.precision == "int8" else ""
        options = f"--backend {self.backend} --precision {self.precision}{recipe}"
        return f"lsms-rt build-engine {source} {options} -o NAME.engine"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The fastest builds for a machine.

    Attributes:
        best: the fastest one, whether or not its backend is installed.
        now: the fastest one with what is installed; None if nothing is.
        install: what to do before ``best`` can be built here; None if it is ``now``.
    """

    best: Build
    now: Build | None
    install: str | None


def advise(cpu: Cpu, driver: Driver, reports: Reports) -> Advice:
    """Choose a build for a machine.

    Args:
        cpu: its CPU.
        driver: its NVIDIA driver and GPUs.
        reports: what ``diagnose`` reports of every backend.
    """
    builds = [
        build
        for build in fastest_builds(cpu, driver, reports)
        if build.precision in reports[build.backend].get("precisions", (build.precision,))
    ]
    now = next((build for build in builds if _can_make(build, reports[build.backend])), None)
    # The last one, ONNX Runtime in fp32, is always worth it.
    best = next(build for build in builds if build == now or build.worth_installing)
    return Advice(best=best, now=now, install=None if best == now else _install(reports[best.backend]))


def default_of_openvino(cpu: Cpu) -> str:
    """Return the precision, in words, that OpenVINO computes in where none is requested."""
    if not cpu.known:
        return "bf16 if this CPU multiplies it, else fp32"
    if cpu.arm:
        return "unknown, since it was not tried on Arm"
    return "bf16" if cpu.bf16 else "fp32"


def fastest_builds(cpu: Cpu, driver: Driver, reports: Reports) -> Iterator[Build]:
    """Yield the builds that run on a machine, the fastest first, whether or not their backends are installed."""
    ort, openvino = reports["onnxruntime"], reports["openvino"]
    if driver.problem is None:
        gpu = f"this machine has a GPU ({driver.gpus[0].name})"
        # Of the two TensorRTs, the one that is there.
        for name in sorted(("tensorrt", "tensorrt-rtx"), key=lambda name: not _works(reports[name])):
            yield Build(backend=name, precision="fp16", reason=gpu)
        if "cuda" in ort.get("devices", ()):
            yield Build(backend="onnxruntime", precision="fp32", reason=f"{gpu}, which ONNX Runtime uses")
    if cpu.known and not cpu.arm:
        yield from _on_x86(cpu)
    elif not cpu.known and "bf16" in openvino.get("precisions", ()):
        why = f"OpenVINO finds that this CPU multiplies bf16: 1.6 to 2.2 {MEASURED}"
        yield Build(backend="openvino", precision="bf16", reason=why, from_engine=True)
    yield Build(backend="onnxruntime", precision="fp32", reason=_why_not_openvino(cpu))


def _on_x86(cpu: Cpu) -> Iterator[Build]:
    if cpu.bf16:
        why = f"this CPU multiplies bf16 ({cpu.bf16}): 1.6 to 2.2 {MEASURED}"
        yield Build(backend="openvino", precision="bf16", reason=why, from_engine=True)
    if cpu.int8:
        but = "" if cpu.bf16 else ", but not bf16"
        why = f"this CPU multiplies INT8 ({cpu.int8}){but}: 1.5 {MEASURED}"
        yield Build(backend="openvino", precision="int8", reason=why)
    if cpu.has("avx2"):
        why = f"OpenVINO in fp32: 1.0 to 1.2 {MEASURED}"
        yield Build(backend="openvino", precision="fp32", reason=why, worth_installing=False, from_engine=True)


def _why_not_openvino(cpu: Cpu) -> str:
    if not cpu.known:
        return (
            f"which instructions this CPU has is unknown on {platform.system()}; if it multiplies bf16 (AMD from Zen "
            "4, Intel Xeon from Sapphire Rapids), --backend openvino --precision bf16 is faster"
        )
    if cpu.arm:
        return "OpenVINO was not measured on Arm"
    if cpu.bf16 or cpu.int8:
        return "runs on every CPU"
    return "this CPU multiplies neither bf16 nor INT8, and OpenVINO gains little in fp32"


def _install(report: Mapping[str, Any]) -> str:
    fix = str(report.get("fix") or report["missing"])
    return f"{fix}; or build it on another machine" if report.get("runs") else fix


def _can_make(build: Build, report: Mapping[str, Any]) -> bool:
    return _works(report) and (build.from_engine or not report.get("from_engines_only"))


def _works(report: Mapping[str, Any]) -> bool:
    return bool(report.get("builds") and report.get("runs"))
