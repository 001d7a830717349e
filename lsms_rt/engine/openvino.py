"""The OpenVINO backend: CPUs, in float32, bfloat16 or INT8, with instructions that ONNX Runtime leaves unused.

An engine's files are the same ONNX graphs; its precision says how OpenVINO computes them.  It is always stated:
OpenVINO's own choice is bfloat16 wherever the processor has it, which changes answers.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from typing import Any

import numpy as np

from lsms_rt.errors import CpuFeatureError, EngineInvalidError, MachineError, MissingDependencyError, brief
from lsms_rt.machine.cpu import cpu_count, find
from lsms_rt.machine.gpu import Driver
from lsms_rt.machine.jetson import Jetson

from .compiled_cache import CompiledCache
from .graph_backend import BUILD, IMAGE_GRAPH, OUTPUTS, TEXT_GRAPH, GraphBackend, Run, can_build, check_inputs
from .manifest import EngineDirectory, Manifest
from .registry import OPENVINO
from .signal_stack import same_signal_stack
from .slice_pool import SlicePool

INSTALL = OPENVINO.install
# An engine's precision, for INT8 that of its other layers -> OpenVINO's name of it.
HINTS = {"fp32": "f32", "bf16": "bf16"}
LIBRARY, TELEMETRY = OPENVINO.name, "openvino_telemetry"
_LOADING = threading.Lock()
log = logging.getLogger("lsms_rt")


def _renew() -> None:
    """In a forked process: the thread that held the lock is not there."""
    global _LOADING
    _LOADING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class OpenVinoBackend(GraphBackend):
    """Runs an engine of ONNX graphs on a CPU, each compiled for one slice, since fixed shapes are a quarter faster.

    The image graph is compiled twice: for single slices, computed by all threads, and, when the first series comes, for
    as many slices at a time as there are threads.

    Args:
        engine: the engine directory.
        threads: CPU threads; None for one per core.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        CpuFeatureError: the processor cannot compute in the engine's precision.
        MachineError: OpenVINO does not work on this machine.
        EngineInvalidError: OpenVINO cannot read or compile a graph.
    """

    def __init__(self, engine: EngineDirectory, threads: int | None) -> None:
        self.version = library_version(LIBRARY)
        manifest = engine.manifest
        hint, core = _hint(manifest), open_core()
        device = _checked_cpu(core, manifest.precision, manifest.rest, str(engine.path))
        # By the graph: engines in other precisions, and the drafts of a build, have the same one.
        digest = manifest.files.get(IMAGE_GRAPH, "")
        cache = CompiledCache(digest, f"{device} {self.version} {hint}", "the graph compiled for this CPU")
        count = threads or cpu_count()
        # Not pinned to cores: they are shared with other work, and nothing was gained by it.
        settings = {"INFERENCE_NUM_THREADS": count, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": hint}

        def opened(name: str, streams: int) -> Run:
            # A large text graph is read faster from ONNX than from OpenVINO's format.
            kept = cache if name == IMAGE_GRAPH else None
            compiled = _compile(core, engine, name, settings | {"NUM_STREAMS": streams}, kept)
            return _Runner(compiled, engine, name)

        single = opened(IMAGE_GRAPH, 1)
        series = (lambda: single) if count == 1 else (lambda: opened(IMAGE_GRAPH, count))
        super().__init__({TEXT_GRAPH: opened(TEXT_GRAPH, 1), IMAGE_GRAPH: single}, SlicePool(count, series))


class _Runner:
    """Runs a compiled graph; it may be called from several threads."""

    def __init__(self, compiled: Any, engine: EngineDirectory, name: str) -> None:
        self._compiled, self._name, self._requests = compiled, name, threading.local()
        try:
            self._outputs = [compiled.output(output) for output in OUTPUTS[name]]
        except RuntimeError as error:
            raise EngineInvalidError(
                f"{engine.path / name} lacks an output of {', '.join(OUTPUTS[name])}; rebuild the engine: "
                f"{engine.manifest.rebuild}"
            ) from error

    def __call__(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        # A request belongs to one thread, and lives as long.
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        try:
            results = request.infer(feeds, share_inputs=True)
        except (RuntimeError, ValueError) as error:
            raise EngineInvalidError(f"OpenVINO could not run {self._name}: {brief(error)}") from error
        return [results[output] for output in self._outputs]


def load() -> Any:
    """Import OpenVINO's Python module, without its telemetry.

    An import sends a message with a user's identifier to the maker's statistics, unless the package that does it cannot
    be imported; then OpenVINO's own stand-in takes its place.

    Raises:
        MissingDependencyError: it is not installed.
        MachineError: it is broken.
    """
    with _LOADING:
        absent, had = LIBRARY not in sys.modules, sys.modules.get(TELEMETRY)
        if absent:
            sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            import openvino
        except ModuleNotFoundError as error:
            if error.name != LIBRARY:
                raise MachineError(f"OpenVINO lacks {error.name}; {INSTALL}") from error
            raise MissingDependencyError(f"OpenVINO is not installed; {INSTALL}") from error
        except (ImportError, OSError) as error:
            raise MachineError(f"OpenVINO cannot be loaded ({brief(error)}); {INSTALL}") from error
        finally:
            if absent and had is None:
                del sys.modules[TELEMETRY]
            elif absent:
                sys.modules[TELEMETRY] = had  # type: ignore[assignment]
    return openvino


def open_core() -> Any:
    """Return OpenVINO's entry, an ``openvino.Core``.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        MachineError: it is broken, or has no plugin for CPUs.
    """
    try:
        with same_signal_stack():
            core = load().Core()
            # This loads the plugin for CPUs.
            capabilities(core)
    except (RuntimeError, AttributeError) as error:
        raise MachineError(f"OpenVINO does not work here ({brief(error)}); install it again: {INSTALL}") from error
    return core


def capabilities(core: Any) -> tuple[str, ...]:
    """Return what OpenVINO finds that the CPU has: "FP32", "BF16", "INT8" ..."""
    return tuple(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _checked_cpu(core: Any, precision: str, rest: str | None, what: str) -> str:
    """Return the processor's name and what it has.

    Raises:
        CpuFeatureError: it cannot compute in bfloat16, for which OpenVINO would silently take float32; or it is known
            to multiply INT8 in sums of 16 bits, which saturate: an engine would answer otherwise than the one that an
            accuracy gate asked.
    """
    found, cpu = capabilities(core), find()
    if "bf16" in (precision, rest) and "BF16" not in found:
        raise CpuFeatureError(
            f"{what} computes in bfloat16, which this processor has no instructions for (OpenVINO finds "
            f"{', '.join(found)}; on x86, avx512_bf16 or amx_bf16 is needed); build the engine with "
            f"{'--rest' if rest else '--precision'} fp32"
        )
    if precision == "int8" and cpu.known and not cpu.int8:
        raise CpuFeatureError(
            f"{what} computes in INT8, whose sums would overflow on this processor ({cpu}; avx_vnni, avx512_vnni, "
            "amx_int8 or i8mm is needed); build the engine with --precision fp32"
        )
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {' '.join(found)}"


def _hint(manifest: Manifest) -> str:
    """Return OpenVINO's name of the precision of an engine's layers, of those of an INT8 engine that are not INT8."""
    int8 = manifest.precision == "int8"
    hint = HINTS.get(str(manifest.rest if int8 else manifest.precision))
    if hint is None:
        what = f"its layers that are not INT8 in {manifest.rest}" if int8 else manifest.precision
        raise EngineInvalidError(
            f"an engine of openvino has {what}, not {' or '.join(HINTS)}; rebuild it: {manifest.rebuild}"
        )
    return hint


def _compile(
    core: Any, engine: EngineDirectory, name: str, settings: dict[str, Any], cache: CompiledCache | None
) -> Any:
    """Compile a graph for one slice and these settings, or take what an earlier process compiled."""
    # First of all: a graph that has changed is refused, whatever the cache holds.
    data = engine.read(name)
    kept = cache.read(name) if cache else b""
    if kept:
        try:
            compiled = core.import_model(io.BytesIO(kept), "CPU", settings)
            _check(compiled.inputs, engine, name)
            return compiled
        except RuntimeError as error:
            log.warning("the graph compiled for this CPU is compiled again, the cached one failed: %s", brief(error))
    model = _read(engine, name, data)
    _check(model.inputs, engine, name)
    try:
        model.reshape({value.any_name: [1, *list(value.partial_shape)[1:]] for value in model.inputs})
        compiled = core.compile_model(model, "CPU", settings)
        exported = compiled.export_model() if cache else b""
    except RuntimeError as error:
        raise EngineInvalidError(f"OpenVINO cannot compile {engine.path / name}: {brief(error)}") from error
    if cache:
        cache.write(name, bytes(exported if isinstance(exported, bytes) else exported.getbuffer()))
    return compiled


def _read(engine: EngineDirectory, name: str, data: bytes) -> Any:
    """Read a graph by OpenVINO's frontend for ONNX; its own choice would take other formats, too."""
    try:
        frontend = load().frontend.FrontEndManager().load_by_framework("onnx")
        return frontend.convert(frontend.load(io.BytesIO(data)))
    except Exception as error:
        # The library's exceptions have no common public base class.
        raise EngineInvalidError(f"OpenVINO cannot read {engine.path / name}: {brief(error)}") from error


def _check(inputs: Any, engine: EngineDirectory, name: str) -> None:
    """Check the inputs of a graph that was read or compiled: their names, types and sizes."""
    shapes = {}
    for value in inputs:
        key, kind = value.any_name, value.element_type.get_type_name()
        shape = value.partial_shape
        # OpenVINO would convert what it is given, whatever its type.
        if kind != ("i64" if key == "tokens" else "f32") or shape.rank.is_dynamic:
            raise EngineInvalidError(
                f"{engine.path / name}: input {brief(key, 60)} is {kind} of {brief(shape, 60)}, not what lsms-rt "
                f"builds; rebuild the engine: {engine.manifest.rebuild}"
            )
        shapes[key] = [size.get_length() if size.is_static else None for size in shape]
    check_inputs(engine, name, shapes)


def open_engine(
    engine: EngineDirectory, threads: int | None, kind: str | None, index: int, cuda_graph: bool
) -> OpenVinoBackend:
    return OpenVinoBackend(engine, threads)


def library_version(name: str) -> str:
    # "2026.4.1-22982-e213a147257-releases/2026/4"
    return str(getattr(load(), "__version__", "0")).split("-")[0]


def check_machine(precision: str, rest: str | None) -> None:
    _checked_cpu(open_core(), precision, rest, "such an engine")


def gpu_index(kind: str | None, index: int) -> int | None:
    return None


def diagnose(name: str, driver: Driver, board: Jetson | None) -> dict[str, Any]:
    absent: dict[str, Any] = {"version": None, "builds": False, "runs": False}
    try:
        core = open_core()
    except MissingDependencyError:
        return absent | {"missing": "OpenVINO", "fix": INSTALL}
    except MachineError as error:
        return absent | {"missing": str(error)}
    half, cpu = ["bf16"] if "BF16" in capabilities(core) else [], find()
    found = {
        "version": library_version(name),
        "builds": True,
        "runs": True,
        "devices": ["cpu"],
        "precisions": ["fp32", *half, *(["int8"] if cpu.int8 or not cpu.known else [])],
    }
    if can_build():
        return found
    missing = "the build side, so that it builds of engines only (--from)"
    return found | {"from_engines_only": True, "missing": missing, "fix": BUILD}
