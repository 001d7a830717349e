"""The table of differences between TensorRT and TensorRT for RTX.  Everything else is shared."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from lsms_rt.errors import MachineError, MissingDependencyError

Version = tuple[int, ...]


@dataclass(frozen=True)
class TensorRtVariant:
    """One of the two libraries.

    Attributes:
        name: its name in manifests.
        title: its name in messages.
        modules: Python modules, tried in order.
        oldest: the oldest supported version.
        before: the first version that is not supported.
        tag: the first bytes of its plans.
        install: how to install it.
        own_graphs: whether it captures CUDA graphs, and caches code that was compiled for a GPU, by itself.
        portable: whether plans are built without a GPU, for a list of compute capabilities.
        cuda: the CUDA version that the driver must support, if it is the same for all builds of the library.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    oldest: Version
    before: Version
    tag: bytes
    install: str
    own_graphs: bool
    portable: bool
    cuda: tuple[int, int] | None = None


TENSORRT = TensorRtVariant(
    name="tensorrt",
    title="TensorRT",
    modules=("tensorrt",),
    oldest=(10, 3),
    before=(12,),
    tag=b"ftrt",
    install="pip install 'lsms-rt[tensorrt]'; on a Jetson it is part of JetPack",
    own_graphs=False,
    portable=False,
)
RTX = TensorRtVariant(
    name="tensorrt-rtx",
    title="TensorRT for RTX",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    oldest=(1, 7),
    before=(2,),
    tag=b"vtrt",
    install="pip install 'lsms-rt[rtx]'",
    own_graphs=True,
    portable=True,
    cuda=(13, 0),
)
VARIANTS = {variant.name: variant for variant in (TENSORRT, RTX)}
# Architectures that RTX plans can be built for, and their bits in a plan's header (found in plans of version 1.7).
RTX_TARGETS = {"sm_80": 1, "sm_86": 2, "sm_89": 3, "sm_120": 4, "sm_121": 5}
# --hardware -> the name in TensorRT's enumeration: only the GPU model it was built on, any GPU of its compute
# capability, any GPU of 8.0 and newer.
HARDWARE = {"none": "NONE", "same-capability": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


def load(variant: TensorRtVariant) -> Any:
    """Import the library's Python module; MachineError if it is missing, broken, too old or too new."""
    for name in variant.modules:
        try:
            module = importlib.import_module(name)
            break
        except ModuleNotFoundError as error:
            if error.name != name:
                raise MissingDependencyError(
                    f"{variant.title} needs {error.name}, which is missing; {variant.install}"
                ) from error
        except (ImportError, OSError) as error:
            # its shared libraries are missing, or of another version
            raise MachineError(f"{variant.title} cannot be loaded ({error}); {variant.install}") from error
    else:
        raise MissingDependencyError(f"{variant.title} is not installed; {variant.install}")
    version = parse_version(str(getattr(module, "__version__", "")))
    if not version:
        raise MachineError(f"the installed module {module.__name__} is not {variant.title}; {variant.install}")
    if not variant.oldest <= version < variant.before:
        low, high = (".".join(map(str, v)) for v in (variant.oldest, variant.before))
        raise MachineError(
            f"{variant.title} {module.__version__} is installed; this lsms-rt supports {low} and newer, below {high}"
        )
    return module


def parse_version(text: str) -> Version:
    """Return the leading numbers of a version such as "10.3.0.26" or "11.4.0.106.post1"; () if there are none."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
