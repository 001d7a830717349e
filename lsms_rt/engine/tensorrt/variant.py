"""What differs between TensorRT and TensorRT for RTX: a table.  All other code is one."""

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

    ``name`` as in manifests; ``modules`` are tried in order; versions from ``oldest`` on and below ``before`` run;
    ``tag`` begins a plan; ``install`` is what a user does who lacks it; ``cuda`` the CUDA that the driver must know,
    where all of its builds need the same.  ``own_graphs``: it captures CUDA graphs, and caches what it compiled for a
    GPU, by itself.  ``portable``: plans are built without a GPU, for a list of compute capabilities.
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
# What RTX plans can be built for, and the bit of each in a plan's header (read off plans of version 1.7).
RTX_TARGETS = {"sm_80": 1, "sm_86": 2, "sm_89": 3, "sm_120": 4, "sm_121": 5}


def load(variant: TensorRtVariant) -> Any:
    """The library's Python module.  Raises :class:`MachineError` where it is missing, broken, too old or new."""
    for name in variant.modules:
        try:
            module = importlib.import_module(name)
            break
        except ModuleNotFoundError as error:
            if error.name != name:
                raise MissingDependencyError(f"{variant.title} lacks {error.name}; {variant.install}") from error
        except (ImportError, OSError) as error:  # its shared libraries are missing, or do not fit
            raise MachineError(f"{variant.title} cannot be loaded ({error}); {variant.install}") from error
    else:
        raise MissingDependencyError(f"{variant.title} is not installed; {variant.install}")
    version = parse_version(str(getattr(module, "__version__", "")))
    if not version:
        raise MachineError(f"the module {module.__name__} here is not {variant.title}; {variant.install}")
    if not variant.oldest <= version < variant.before:
        low, high = (".".join(map(str, v)) for v in (variant.oldest, variant.before))
        raise MachineError(
            f"{variant.title} {module.__version__} is installed; this lsms-rt runs {low} and newer, below {high}"
        )
    return module


def parse_version(text: str) -> Version:
    """``"10.3.0.26"`` or ``"11.4.0.106.post1"`` -> its leading numbers.  ``()`` where there are none."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
