"""Whether an engine may run on this machine, asked before anything of it is given to a driver.

Every refusal says what was expected, what was found, and the command that mends it.
"""

from __future__ import annotations

from ...errors import DriverTooOld, EngineInvalid, EngineOtherGpu, EngineOtherVersion, NoGpu
from ...gpu import Driver, Gpu
from ..manifest import Manifest
from .flavour import Flavour, parse_version
from .header import PlanHeader

# What a plan of TensorRT runs on: the GPU's own capability, "same-capability": any GPU of it, "ampere+": 8.0 and newer.
HARDWARE = ("none", "same-capability", "ampere+")


def rebuild(manifest: Manifest) -> str:
    """The command that mends a refused plan."""
    return (
        f"build it again: lsms-rt build-engine --checkpoint DIR --backend {manifest.backend} "
        f"--precision {manifest.precision} -o NAME.engine"
    )


def check_version(manifest: Manifest, installed: str, flavour: Flavour) -> None:
    """A plan runs with the very version that built it; a version-compatible one with any newer of the same major.

    Raises :class:`EngineOtherVersion`.
    """
    built, here = parse_version(manifest.backend_version), parse_version(installed)
    if built == here:
        return
    if manifest.plan_options.get("version_compatible") and built[:1] == here[:1] and built <= here:
        return
    raise EngineOtherVersion(
        f"the engine was built with {flavour.title} {manifest.backend_version}, this machine has {installed}; "
        f"install that version, or {rebuild(manifest)}"
    )


def check_header(manifest: Manifest, header: PlanHeader, flavour: Flavour, what: str) -> None:
    """A plan must be what the manifest says.  Raises :class:`EngineInvalid`."""
    if header.flavour is not flavour:
        raise EngineInvalid(
            f"{what} is a plan of {header.flavour.title}, its manifest says {flavour.title}; {rebuild(manifest)}"
        )
    missing = set(manifest.target_capabilities) - set(header.targets)
    if missing:
        raise EngineInvalid(
            f"{what} is built for {', '.join(header.targets)}, its manifest says also {', '.join(sorted(missing))}; "
            f"{rebuild(manifest)}"
        )


def check_gpu(manifest: Manifest, driver: Driver, index: int, flavour: Flavour) -> Gpu:
    """The GPU number ``index``, if the engine may run there.

    Raises :class:`NoGpu`, :class:`DriverTooOld`, :class:`EngineOtherGpu`.
    """
    if driver.problem or index >= len(driver.gpus):
        found = driver.problem or f"it has {len(driver.gpus)}, and number {index} was asked for"
        raise NoGpu(
            f"a {flavour.title} engine needs an NVIDIA GPU: {found}; for a CPU, "
            "lsms-rt build-engine --backend onnxruntime"
        )
    if flavour.cuda and driver.cuda < flavour.cuda:
        needed, found = (".".join(map(str, version)) for version in (flavour.cuda, driver.cuda))
        raise DriverTooOld(
            f"{flavour.title} needs a driver for CUDA {needed}, this one is for CUDA {found}; update the NVIDIA driver"
        )
    gpu = driver.gpus[index]
    if manifest.target_capabilities:
        fits, wanted = gpu.arch in manifest.target_capabilities, ", ".join(manifest.target_capabilities)
    else:
        wanted = f"compute capability {manifest.compute_capability} ({manifest.device_name})"
        fits = _fits(manifest, gpu)
    if not fits:
        raise EngineOtherGpu(
            f"the engine was built for {wanted}, this GPU is {gpu.name} with compute capability "
            f"{gpu.capability[0]}.{gpu.capability[1]}; {rebuild(manifest)}"
            + (f" --target {gpu.arch}" if flavour.portable else "")
        )
    return gpu


def _fits(manifest: Manifest, gpu: Gpu) -> bool:
    hardware = manifest.plan_options.get("hardware", "none")
    if hardware == "ampere+":
        return gpu.capability >= (8, 0)
    same = parse_version(manifest.compute_capability or "") == gpu.capability
    return same and (hardware == "same-capability" or manifest.device_name == gpu.name)
