"""Launch the PTX that TensorRT's plugins get, by the driver alone: it loads, it is right, and it is Triton's own code.

A plugin gets PTX without Triton's hidden parameters, which the driver compiles when it is loaded.  Here the same text
goes through ``cuModuleLoadData`` and ``cuLaunchKernel``, with the plugin's grid, block and shared memory; neither
TensorRT nor pycuda is needed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lsms_rt.bench.records import PLUGINS_VERIFIED
from lsms_rt.kernels.aot import TARGETS, Compiled, compile_launch
from lsms_rt.kernels.canaries import same_bits
from lsms_rt.kernels.launch import Launch
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.test_data import block_tensors
from lsms_rt.kernels.verify import run, verify

from .verify import module_of, shapes_of
from .worker import NotRunError

Row = dict[str, Any]
BATCH = 2


class Loader:
    """Compiles launches for an architecture, loads their PTX, and starts them; ``driver`` is ``cuda.bindings.driver``.

    Attributes:
        compiled: every launch that was started, in order.
        load_s: seconds that the driver took to compile and load them.
    """

    def __init__(self, driver: Any, shape: Shape, arch: str) -> None:
        self.compiled: list[Compiled] = []
        self.load_s = 0.0
        self._driver, self._shape, self._arch = driver, shape, arch
        self._functions: dict[str, tuple[Compiled, Any]] = {}

    def start(self, launch: Launch, batch: int, *tensors: Tensor) -> None:
        """Start a launch on PyTorch's stream, as ``kernels.verify.run`` asks for."""
        name = launch.kernel.__name__
        if name not in self._functions:
            self._functions[name] = self._load(launch)
        compiled, function = self._functions[name]
        pointers = tuple(tensor.data_ptr() for tensor in tensors)
        self._called(
            "cuLaunchKernel", function, *compiled.grid, batch, compiled.block, 1, 1, compiled.shared,
            torch.cuda.current_stream().cuda_stream if tensors[0].is_cuda else 0,
            (pointers, (ctypes.c_void_p,) * len(pointers)), 0,
        )  # fmt: skip

    def _load(self, launch: Launch) -> tuple[Compiled, Any]:
        compiled = compile_launch(launch, self._shape, self._arch)
        begin = time.perf_counter()
        (module,) = self._called("cuModuleLoadData", compiled.ptx.encode() + b"\0")
        self.load_s += time.perf_counter() - begin
        (function,) = self._called("cuModuleGetFunction", module, compiled.entry.encode())
        self.compiled.append(compiled)
        return compiled, function

    def _called(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        code, *results = getattr(self._driver, name)(*arguments)
        if code != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{name} failed: {code.name}")
        return tuple(results)


def verify_ptx(driver: Any, kernel: str, shape: Shape, arch: str, device: str) -> Iterator[Row]:
    """Compare a kernel's PTX with its plain twin, and with what Triton's own launch of the same tiles gives."""
    module, tensors = module_of(kernel), block_tensors(shape, BATCH, device=device)

    def default(launch: Any, at: Shape) -> Any:
        # As in a plugin: tuned tile sizes are not used ahead of time.
        return launch(at)

    loader = Loader(driver, shape, arch)
    deviations = verify(module, shape, tensors, default, loader.start)
    ours, triton = run(module, shape, tensors, default, None, loader.start), run(module, shape, tensors, default)
    same = all(same_bits(output, triton[name]) for name, output in ours.items())
    takes = {
        "target": loader.compiled[0].target, "load_s": round(loader.load_s, 4), "as_triton": same,
        "registers": max(c.registers for c in loader.compiled), "shared": max(c.shared for c in loader.compiled),
    }  # fmt: skip
    for deviation in deviations:
        yield {"kind": PLUGINS_VERIFIED, **asdict(deviation), **takes, "ok": deviation.ok}


def kernel_unit(kernel: str, presets: list[str], size: int) -> Iterator[Row]:
    """Verify a kernel's PTX at the shapes of some presets."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise NotRunError(f"cuda-bindings is not installed ({error}); pip install cuda-bindings") from error
    major, minor = torch.cuda.get_device_capability()
    arch = f"sm_{major}{minor}"
    if arch not in TARGETS:
        raise NotRunError(f"no plugins are compiled for {arch}; those for {', '.join(TARGETS)} are")
    # Makes the context that the driver's calls use.
    torch.empty(1, device="cuda")
    for shape in shapes_of(kernel, presets, [size]):
        yield from verify_ptx(driver, kernel, shape, arch, "cuda")
