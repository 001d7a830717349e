"""A plan of TensorRT, or of TensorRT for RTX, from an ONNX graph.

The networks are strongly typed: precision is what the graph says.  Both libraries report most failures as None, False
or a line in a log; here each is an error.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsms_rt.engine.tensorrt.compatibility import HARDWARE
from lsms_rt.engine.tensorrt.header import read_header
from lsms_rt.engine.tensorrt.messages import Messages, explain, logger_of
from lsms_rt.engine.tensorrt.variant import Flavour, load
from lsms_rt.errors import EngineError, GpuNotFoundError, InputError
from lsms_rt.machine.gpu import look

from . import tensorrt_layers as layers

# alias of version 0.1
from .options import PlanOptions as PlanOptions

Report = dict[str, Any]
log = logging.getLogger("lsms_rt")


Profile = tuple[int, int, int]  # smallest, best and largest batch
Progress = Callable[[str, int, int], None]  # phase, step, steps


def check_builder(flavour: Flavour, options: PlanOptions) -> None:
    """Check everything that would stop :func:`build_plan`, before the expensive steps.

    Raises:
        InputError: the library does not support the options.
        MachineError: the library is missing.
        GpuNotFoundError: there is no GPU, on which TensorRT measures kernels.
    """
    options.check(flavour)
    library = load(flavour)
    _hardware_level(library, options)
    problem = look().problem
    if problem and not flavour.portable:
        raise GpuNotFoundError(
            f"{flavour.title} builds on the GPU that will run the engine: {problem}; see lsms-rt doctor"
        )


def build_plan(
    flavour: Flavour, graph: Path, profile: Profile, options: PlanOptions, progress: Progress | None = None
) -> tuple[bytes, Report]:
    """The plan of the ONNX file ``graph`` for batches of ``profile``, and a report of its layers.

    Raises :class:`EngineError` where the graph cannot be parsed or built, and what :func:`check_builder` raises.
    """
    options.check(flavour)
    library = load(flavour)
    logger = logger_of(library)
    messages, mark = logger.messages, logger.messages.mark()
    try:
        builder = library.Builder(logger)
    except TypeError as error:  # how the bindings say that the library made none
        raise explain(f"{flavour.title} makes no builder here", messages.errors(mark)) from error
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, logger, graph)
    config = builder.create_builder_config()
    _configure(library, flavour, config, options)
    config.progress_monitor = _monitor(library, messages, progress or (lambda *_: None))
    _add_profile(builder, network, config, profile, graph.name)
    if options.timing_cache is not None:
        _read_timing_cache(config, options.timing_cache)
    mark, messages.interrupt = messages.mark(), None
    with messages.recording() as said, _interruptible(messages):
        plan = builder.build_serialized_network(network, config)
    if messages.interrupt is not None:
        raise messages.interrupt
    if plan is None:
        raise explain(f"{flavour.title} did not build {graph.name}", messages.errors(mark))
    if options.timing_cache is not None:
        _write_timing_cache(config, options.timing_cache)
    data = bytes(plan)
    read_header(data, f"the plan of {graph.name}")
    report = {"library": flavour.title, "version": library.__version__, "bytes": len(data)}
    return data, report | _layers(library, logger, data, said, options.version_compatible)


@contextmanager
def _interruptible(messages: Messages) -> Iterator[None]:
    """Ctrl-C is noted, and acted on when the library asks whether to go on: it swallows exceptions of its callbacks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(*_: object) -> None:
        messages.interrupt = KeyboardInterrupt()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _parse(library: Any, network: Any, logger: Any, graph: Path) -> None:
    """Garbage in text form "parses" into a network without outputs, so those are counted."""
    parser = library.OnnxParser(network, logger)
    parsed = parser.parse(graph.read_bytes())
    mistakes = [parser.get_error(index) for index in range(parser.num_errors)]
    said = [f"{mistake.node_operator()} {mistake.node_name()}: {mistake.desc()}" for mistake in mistakes]
    if not parsed or not network.num_outputs:
        raise EngineError(f"{graph.name} is no graph for TensorRT: {' | '.join(said[:3]) or 'it has no outputs'}")


def _configure(library: Any, flavour: Flavour, config: Any, options: PlanOptions) -> None:
    config.clear_flag(library.BuilderFlag.TF32)  # on by default: it would round fp32 to fp16's 11 bits
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    level = _hardware_level(library, options)
    config.hardware_compatibility_level = level
    if config.hardware_compatibility_level != level:  # refused with a line in the log
        raise EngineError(f"--hardware {options.hardware}: {flavour.title} {library.__version__} does not take it here")
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # names and types of layers, for the report
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            capability = getattr(library.ComputeCapability, target.replace("_", "").upper())
            if not config.set_compute_capability(capability, index):
                raise EngineError(f"{flavour.title} {library.__version__} refuses to build for {target}")


def _hardware_level(library: Any, options: PlanOptions) -> Any:
    """A value of an enumeration that older versions have not wholly.  Raises :class:`InputError`."""
    levels, name = library.HardwareCompatibilityLevel, HARDWARE[options.hardware]
    if not hasattr(levels, name):
        raise InputError(
            f"--hardware {options.hardware}: TensorRT {library.__version__} has no {name}; take a newer one, "
            "or leave it out"
        )
    return getattr(levels, name)


def _monitor(library: Any, messages: Messages, progress: Progress) -> Any:
    """Tells ``progress``, and stops the build after Ctrl-C: an exception cannot pass through the library."""

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def _tell(self, phase: str, step: int, steps: int) -> None:
            try:
                progress(phase, step, steps)
            except BaseException as error:
                messages.interrupt = error

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            self._tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1, self.steps.get(phase_name, 0))
            return messages.interrupt is None

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 0)
            self._tell(phase_name, steps, steps)

    return Monitor()


def _add_profile(builder: Any, network: Any, config: Any, batches: Profile, what: str) -> None:
    """One profile over all inputs; names come from the network, since a wrong one would be accepted silently."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] != -1 or -1 in shape[1:]:
            raise EngineError(f"{what}: input {tensor.name} has shape {shape}; only the first axis may be dynamic")
        profile.set_shape(tensor.name, *(tuple(batch if size == -1 else size for size in shape) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{what}: the profile of batches {batches} was refused")


def _read_timing_cache(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise InputError(f"{path} is no timing cache of this TensorRT and GPU; give another --timing-cache")


def _write_timing_cache(config: Any, path: Path) -> None:
    """What fails here costs the next build time, and must not cost this one its plan."""
    cache = config.get_timing_cache()
    try:
        if cache is not None:
            path.write_bytes(bytes(cache.serialize()))
    except OSError as error:
        log.warning("%s: the timing cache is not written (%s)", path, error.strerror)


def _layers(library: Any, logger: Any, plan: bytes, said: list[str], host_code: bool) -> Report:
    """Layers as the builder's log tells them, or as the engine inspector does, which needs a GPU.

    A report is worth less than a plan: what fails is written into it.
    """
    rows = layers.from_log(said)
    if rows:
        memory = [line for line in said if line.startswith(("Total Activation", "Total Weights", "Max Scratch"))]
        return {"source": "builder's log", "summary": layers.summary(rows), "memory": memory, "layers": rows}
    try:
        runtime = library.Runtime(logger)
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(library.LayerInformationFormat.JSON)
        rows = layers.from_inspector(json.loads(text, strict=False))
    except (AttributeError, TypeError, ValueError) as error:  # None where an engine or inspector should be, or no JSON
        return {
            "source": "none",
            "problem": f"no inspector here ({error})",
            "summary": layers.summary([]),
            "layers": [],
        }
    return {"source": "engine inspector", "summary": layers.summary(rows), "layers": rows}
