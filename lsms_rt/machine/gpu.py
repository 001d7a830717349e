"""NVIDIA driver and GPUs of this machine, queried from the driver library itself: no package is needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# CUdevice_attribute: compute capability, and memory shared with the CPU
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: the driver's name of it.
        capability: compute capability, e.g. (8, 7).
        memory: bytes.
        integrated: whether it shares the CPU's memory, as a Jetson's does.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    integrated: bool

    @property
    def arch(self) -> str:
        """Return the architecture's name, e.g. ``sm_87``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver and its GPUs.

    Attributes:
        cuda: the newest CUDA version that it supports, e.g. (13, 0); (0, 0) without a driver.
        gpus: in the driver's order.
        problem: why no GPU can be used; None if one can.
    """

    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


def query_driver() -> Driver:
    """Query the NVIDIA driver; never raises."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return Driver(problem=f"no NVIDIA driver ({_LIBRARY} was not found)")
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda = (version.value // 1000, version.value % 1000 // 10)
    code = library.cuInit(0)
    if code:
        return Driver(cuda, problem=f"the NVIDIA driver failed to initialize (cuInit: {_name(library, code)})")
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    return Driver(cuda, gpus, None if gpus else "the NVIDIA driver finds no GPU")


# alias of version 0.1
look = query_driver


def _gpu(library: Any, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    capability = (attribute(_MAJOR), attribute(_MINOR))
    return Gpu(name.value.decode(errors="replace"), capability, memory.value, bool(attribute(_INTEGRATED)))


def _name(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(text))
    return (text.value or str(code).encode()).decode()
