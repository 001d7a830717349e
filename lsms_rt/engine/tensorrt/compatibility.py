"""Check whether an engine can run on this machine, before anything is passed to the driver.

Every error says what was expected, what was found, and the command that fixes it.
"""

from __future__ import annotations

import platform
import re

from lsms_rt.engine.manifest import EngineDirectory, Manifest
from lsms_rt.errors import (
    DriverTooOldError,
    EngineInvalidError,
    EngineTrustError,
    GpuNotFoundError,
    TensorRtVersionError,
    WrongGpuError,
)
from lsms_rt.machine.gpu import Driver, Gpu

from .header import PlanHeader
from .variant import RTX_TARGETS, TensorRtVariant, parse_version


def check_version(manifest: Manifest, installed: str, variant: TensorRtVariant) -> None:
    """Raise TensorRtVersionError unless the installed library runs the engine.

    A plan runs with the version that built it; a version-compatible one also with newer ones, up to the next major.

    Args:
        manifest: of the engine.
        installed: version of the installed library.
        variant: the library.
    """
    built, here = parse_version(manifest.backend_version), parse_version(installed)
    if built == here:
        return
    if manifest.holds_host_code and built <= here and here[0] - built[0] <= 1:
        return
    raise TensorRtVersionError(
        f"the engine was built with {variant.title} {manifest.backend_version}, this machine has {installed}; "
        f"install that version, or rebuild the engine: {manifest.rebuild}"
    )


def check_trust(directory: EngineDirectory) -> None:
    """Raise EngineTrustError if the plans bring code for the CPU, and the caller does not vouch for the engine.

    The manifest itself says so, and whoever made the engine wrote it: its digests prove nothing here.
    """
    if directory.manifest.holds_host_code and not directory.trusted:
        raise EngineTrustError(
            f"{directory.path} was built with --version-compatible, so its plans bring code that runs on this CPU, as "
            f"you; if you built it or know who did, say so: --digest {directory.digest} (in Python digest=...), or "
            "--trust (trust_host_code=True)"
        )


def check_header(manifest: Manifest, header: PlanHeader, variant: TensorRtVariant, what: str) -> None:
    """Raise EngineInvalidError unless a plan's header agrees with the manifest; ``what`` is the file's name."""
    if header.variant is not variant:
        raise EngineInvalidError(
            f"{what} is a plan of {header.variant.title}, its manifest says {variant.title}; "
            f"rebuild the engine: {manifest.rebuild}"
        )
    if variant.portable and header.version != parse_version(manifest.backend_version):
        raise EngineInvalidError(
            f"{what} is of {variant.title} {'.'.join(map(str, header.version))}, its manifest says "
            f"{manifest.backend_version}; rebuild the engine: {manifest.rebuild}"
        )
    missing = set(manifest.target_capabilities) - set(header.targets)
    if missing:
        raise EngineInvalidError(
            f"{what} is built for {', '.join(header.targets)}, its manifest also lists {', '.join(sorted(missing))}; "
            f"rebuild the engine: {manifest.rebuild}"
        )


def check_gpu(manifest: Manifest, driver: Driver, index: int, variant: TensorRtVariant) -> Gpu:
    """Return the GPU number ``index`` if the engine can run on it.

    Args:
        manifest: of the engine.
        driver: the NVIDIA driver with its GPUs.
        index: number of the GPU.
        variant: the library that runs the engine.

    Raises:
        GpuNotFoundError: there is no such GPU.
        DriverTooOldError: the library needs a newer driver.
        WrongGpuError: the engine was built for another GPU or platform.
    """
    if driver.problem or index >= len(driver.gpus):
        problem = driver.problem or f"there are {len(driver.gpus)}, and number {index} (from 0) was requested"
        raise GpuNotFoundError(
            f"a {variant.title} engine needs an NVIDIA GPU: {problem}; for a CPU, "
            "lsms-rt build-engine --backend onnxruntime"
        )
    if variant.cuda and driver.cuda < variant.cuda:
        needed, supported = (".".join(map(str, version)) for version in (variant.cuda, driver.cuda))
        raise DriverTooOldError(
            f"{variant.title} needs a driver for CUDA {needed}, this one supports CUDA {supported}; update the NVIDIA "
            "driver"
        )
    gpu = driver.gpus[index]
    here = f"this GPU is {gpu.name} with compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    if variant.portable:
        if gpu.arch not in RTX_TARGETS:
            raise WrongGpuError(f"{variant.title} does not support {gpu.arch}: {here}; use --backend tensorrt")
        if gpu.arch not in manifest.target_capabilities:
            built = ", ".join(manifest.target_capabilities)
            raise WrongGpuError(
                f"the engine was built for {built}, {here}; rebuild it: {manifest.rebuild} --target {gpu.arch}"
            )
        return gpu
    built_on, platform_here = manifest.plan_options.get("platform"), platform_name()
    if built_on not in (None, platform_here):
        raise WrongGpuError(
            f"the engine was built on {built_on}, this is {platform_here}; rebuild it here: {manifest.rebuild}"
        )
    plugins = manifest.plan_options.get("plugins")
    if plugins not in (None, gpu.arch):
        raise WrongGpuError(f"the engine holds kernels compiled for {plugins}, {here}; rebuild it: {manifest.rebuild}")
    if not _fits(manifest, gpu):
        built = f"compute capability {manifest.compute_capability} ({manifest.device_name})"
        raise WrongGpuError(f"the engine was built for {built}, {here}; rebuild it: {manifest.rebuild}")
    return gpu


def platform_name() -> str:
    """Return operating system and processor, e.g. "Linux aarch64", for which TensorRT plans are built."""
    return f"{platform.system()} {platform.machine()}"


def _fits(manifest: Manifest, gpu: Gpu) -> bool:
    hardware = manifest.plan_options.get("hardware", "none")
    if hardware == "ampere+":
        return gpu.capability >= (8, 0)
    same = parse_version(manifest.compute_capability or "") == gpu.capability
    return same and (hardware == "same-capability" or _model(manifest.device_name or "") == _model(gpu.name))


def _model(name: str) -> str:
    """A GPU's name without its memory size: A100s with 40 and 80 GB run the same code."""
    return re.sub(r"[- ]\d+ ?GB\b", "", name)
