"""The table of backends, and how an engine is opened with one.

No other module compares a backend's name: what depends on the backend is a field of its row, or a function of its
module.  A new backend is one file with the functions of :class:`BackendModule`, one row in ``BACKENDS``, and its
package as an extra in pyproject.toml.  This module stays light: the command line reads names from it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, cast

from lsms_rt.errors import EngineInvalidError, InputError

from .backend import Backend
from .tensorrt.variant import VARIANTS, TensorRtVariant

if TYPE_CHECKING:
    from lsms_rt.machine.gpu import Driver
    from lsms_rt.machine.jetson import Jetson

    from .manifest import EngineDirectory


class BackendModule(Protocol):
    """The functions that the module of a backend has.  ``name`` is that of the row, for modules with several rows."""

    def open_engine(
        self, engine: EngineDirectory, threads: int | None, kind: str | None, index: int, cuda_graph: bool
    ) -> Backend:
        """Open an engine on device number ``index`` of ``kind``, one of the row's ``devices``; None: the best one."""

    def library_version(self, name: str) -> str:
        """Return the version of the installed library.  Raises ``MachineError`` if it cannot be used."""

    def check_machine(self, precision: str, rest: str | None) -> None:
        """Raise ``MachineError`` if this machine cannot run engines in ``precision``, INT8 with ``rest`` beside it."""

    def gpu_index(self, kind: str | None, index: int) -> int | None:
        """Return the number of the GPU that an engine would run on; None for a CPU."""

    def diagnose(self, name: str, driver: Driver, board: Jetson | None) -> dict[str, Any]:
        """Report for ``lsms-rt doctor``: "version", "builds", "runs" and, for a problem, "missing" and "fix"."""


@dataclass(frozen=True)
class BackendSpec:
    """One backend.

    Attributes:
        name: the name in manifests and on the command line.
        title: the name in messages.
        module: the Python module with the functions of :class:`BackendModule`; imported when it is used.
        devices: kinds of device that it runs on, as ``device`` names them.
        file_suffix: the suffix of an engine's two files.
        builds_plans: whether the files are plans that a TensorRT builder compiled from ONNX graphs, instead of the
            graphs themselves.
        install: what a user without the library does.
        precisions: of the engines that it runs, the default first.
        rests: precisions of the layers of an INT8 engine that are not INT8, the default first.
        int8_note: what a build says of the speed of INT8.
        serial: whether calls of several threads wait for each other, each computed by all threads of the engine.
    """

    name: str
    title: str
    module: str
    devices: tuple[str, ...]
    install: str
    file_suffix: str = ".onnx"
    builds_plans: bool = False
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    rests: tuple[str, ...] = ("fp16", "fp32")
    serial: bool = False
    int8_note: str = "measure its speed on the target device: lsms-rt bench; no speed is claimed here"

    @property
    def needs_gpu(self) -> bool:
        """Whether the backend runs on GPUs only."""
        return "cpu" not in self.devices

    @property
    def exact_device(self) -> str | None:
        """The device on which an engine is compared with PyTorch: the CPU, where fp32 is fp32; None: its only kind."""
        return None if self.needs_gpu else "cpu"

    def load(self) -> BackendModule:
        """Import the backend's module."""
        return cast(BackendModule, importlib.import_module(self.module))


def _tensorrt(variant: TensorRtVariant) -> BackendSpec:
    return BackendSpec(
        name=variant.name,
        title=variant.title,
        module="lsms_rt.engine.tensorrt.entry",
        devices=("cuda",),
        install=variant.install,
        file_suffix=".plan",
        builds_plans=True,
    )


# The default, and the backend that runs the graphs from which plans are built.
ONNXRUNTIME = BackendSpec(
    name="onnxruntime",
    title="ONNX Runtime",
    module="lsms_rt.engine.onnxruntime",
    # "tensorrt" is an execution provider of ONNX Runtime.
    devices=("cpu", "cuda", "tensorrt"),
    install="pip install onnxruntime",
    int8_note="ONNX Runtime on a CPU did not run INT8 faster than fp32 in our measurements (docs/int8.md):\n"
    "use this engine to judge accuracy, and as the input of --from",
)
OPENVINO = BackendSpec(
    name="openvino",
    title="OpenVINO",
    module="lsms_rt.engine.openvino",
    devices=("cpu",),
    install="pip install 'lsms-rt[openvino]'",
    precisions=("fp32", "bf16", "int8"),
    # Every processor has the first one.
    rests=("fp32", "bf16"),
    serial=True,
)
BACKENDS = {spec.name: spec for spec in (ONNXRUNTIME, OPENVINO, *map(_tensorrt, VARIANTS.values()))}


def find_backend(name: str, subject: str) -> BackendSpec:
    """Return the row of backend ``name``.

    Args:
        name: the backend's name, as in a manifest.
        subject: what names the backend, for the message: an engine's path.

    Raises:
        EngineInvalidError: the table has no such backend.
    """
    spec = BACKENDS.get(name)
    if spec is None:
        raise EngineInvalidError(
            f"{subject} is for backend {name!r}, which this lsms-rt does not have; it runs: {', '.join(BACKENDS)}. "
            "Check the spelling, or pip install --upgrade lsms-rt"
        )
    return spec


def open_backend(
    engine: EngineDirectory, threads: int | None = None, device: str | None = None, cuda_graph: bool = True
) -> Backend:
    """Open an engine with the backend that its manifest names.

    Args:
        engine: the engine directory, from ``open_directory``.
        threads: CPU threads; None lets the library choose, or gives it
            the CPUs that this process may use, where that is not all.
        device: "cpu", "cuda" or "cuda:1", for ONNX Runtime also "tensorrt" (its execution provider); None uses a GPU if
            there is one and the backend can.
        cuda_graph: whether TensorRT runs plans as CUDA graphs.

    Raises:
        InputError: the backend does not run on ``device``, or ``threads`` is no number from 1.
        EngineInvalidError: the table has no such backend, or the engine's files cannot be used.
        MachineError: the backend's library or the device is missing.
    """
    given: Any = threads
    if given is not None and not (isinstance(given, Integral) and given >= 1):  # type: ignore[operator]
        shown = given if isinstance(given, Integral) else f"a {type(given).__name__}"
        raise InputError(f"threads is {shown}; give a number from 1, or None")
    spec = find_backend(engine.manifest.backend, str(engine.path))
    kind, index = parse_device(device)
    if kind is not None and kind not in spec.devices:
        others = [other.name for other in BACKENDS.values() if kind in other.devices]
        raise InputError(
            f"device {device!r}: an engine of {spec.name} runs on {', '.join(spec.devices)}; for {kind} build one of "
            f"{' or '.join(others)}"
        )
    return spec.load().open_engine(engine, threads, kind, index, cuda_graph)


def parse_device(device: str | None) -> tuple[str | None, int]:
    """Split a device into its kind and number: ``"cuda:1"`` -> ``("cuda", 1)``, None -> ``(None, 0)``.

    Raises:
        InputError: no backend has such a device.
    """
    if device is None:
        return None, 0
    kind, colon, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    kinds = {kind for spec in BACKENDS.values() for kind in spec.devices}
    if kind not in kinds or (colon and (kind == "cpu" or not index.isdecimal())):
        raise InputError(f"device {device!r}; give cpu, cuda or cuda:1 (tensorrt is ONNX Runtime's provider)")
    return kind, int(index or "0")
