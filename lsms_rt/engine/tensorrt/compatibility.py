"""Whether an engine may run on this machine, asked before anything of it is given to a driver.

Every refusal says what was expected, what was found, and the command that mends it.
"""

from __future__ import annotations

import platform
import re

from lsms_rt.engine.manifest import Manifest
from lsms_rt.errors import DriverTooOldError, EngineInvalidError, GpuNotFoundError, TensorRtVersionError, WrongGpuError
from lsms_rt.machine.gpu import Driver, Gpu

from .header import PlanHeader
from .variant import RTX_TARGETS, TensorRtVariant, parse_version

# What a plan of TensorRT runs on -> the name in TensorRT's enumeration: the very GPU, any of its compute capability,
# any of 8.0 and newer.
HARDWARE = {"none": "NONE", "same-capability": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


def check_version(manifest: Manifest, installed: str, variant: TensorRtVariant) -> None:
    """A plan runs with the version that built it; a version-compatible one also with newer ones, up to the next major.

    Raises :class:`TensorRtVersionError`.
    """
    built, here = parse_version(manifest.backend_version), parse_version(installed)
    if built == here:
        return
    if manifest.plan_options.get("version_compatible") and built <= here and here[0] - built[0] <= 1:
        return
    raise TensorRtVersionError(
        f"the engine was built with {variant.title} {manifest.backend_version}, this machine has {installed}; "
        f"install that version, or build it again: {manifest.rebuild}"
    )


def check_header(manifest: Manifest, header: PlanHeader, variant: TensorRtVariant, what: str) -> None:
    """A plan must be what the manifest says.  Raises :class:`EngineInvalidError`."""
    if header.variant is not variant:
        raise EngineInvalidError(
            f"{what} is a plan of {header.variant.title}, its manifest says {variant.title}; "
            f"build it again: {manifest.rebuild}"
        )
    if variant.portable and header.version != parse_version(manifest.backend_version):
        raise EngineInvalidError(
            f"{what} is of {variant.title} {'.'.join(map(str, header.version))}, its manifest says "
            f"{manifest.backend_version}; build it again: {manifest.rebuild}"
        )
    missing = set(manifest.target_capabilities) - set(header.targets)
    if missing:
        raise EngineInvalidError(
            f"{what} is built for {', '.join(header.targets)}, its manifest says also {', '.join(sorted(missing))}; "
            f"build it again: {manifest.rebuild}"
        )


def check_gpu(manifest: Manifest, driver: Driver, index: int, variant: TensorRtVariant) -> Gpu:
    """The GPU number ``index``, if the engine may run there.

    Raises :class:`GpuNotFoundError`, :class:`DriverTooOldError`, :class:`WrongGpuError`.
    """
    if driver.problem or index >= len(driver.gpus):
        found = driver.problem or f"it has {len(driver.gpus)}, and number {index} was asked for"
        raise GpuNotFoundError(
            f"a {variant.title} engine needs an NVIDIA GPU: {found}; for a CPU, "
            "lsms-rt build-engine --backend onnxruntime"
        )
    if variant.cuda and driver.cuda < variant.cuda:
        needed, found = (".".join(map(str, version)) for version in (variant.cuda, driver.cuda))
        raise DriverTooOldError(
            f"{variant.title} needs a driver for CUDA {needed}, this one is for CUDA {found}; update the NVIDIA driver"
        )
    gpu = driver.gpus[index]
    found = f"this GPU is {gpu.name} with compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    if variant.portable:
        if gpu.arch not in RTX_TARGETS:
            raise WrongGpuError(f"{variant.title} does not run on {gpu.arch}: {found}; take --backend tensorrt")
        if gpu.arch not in manifest.target_capabilities:
            built = ", ".join(manifest.target_capabilities)
            raise WrongGpuError(
                f"the engine was built for {built}, {found}; build it again: {manifest.rebuild} --target {gpu.arch}"
            )
        return gpu
    built_on, here = manifest.plan_options.get("platform"), platform_name()
    if built_on not in (None, here):
        raise WrongGpuError(f"the engine was built on {built_on}, this is {here}; build it here: {manifest.rebuild}")
    if not _fits(manifest, gpu):
        wanted = f"compute capability {manifest.compute_capability} ({manifest.device_name})"
        raise WrongGpuError(f"the engine was built for {wanted}, {found}; build it again: {manifest.rebuild}")
    return gpu


def platform_name() -> str:
    """A plan of TensorRT is for one operating system and processor: ``"Linux aarch64"``."""
    return f"{platform.system()} {platform.machine()}"


def _fits(manifest: Manifest, gpu: Gpu) -> bool:
    hardware = manifest.plan_options.get("hardware", "none")
    if hardware == "ampere+":
        return gpu.capability >= (8, 0)
    same = parse_version(manifest.compute_capability or "") == gpu.capability
    return same and (hardware == "same-capability" or _model(manifest.device_name or "") == _model(gpu.name))


def _model(name: str) -> str:
    """A GPU's name without the size of its memory: an A100 of 40 GB and one of 80 run the same code."""
    return re.sub(r"[- ]\d+ ?GB\b", "", name)
