"""Build a plan of TensorRT, or of TensorRT for RTX, from an ONNX graph.

The networks are strongly typed: the graph defines the precision.  Both libraries report most failures as None, False or
a line in a log; here each raises an error.
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

from lsms_rt.engine.tensorrt.header import read_header
from lsms_rt.engine.tensorrt.messages import Messages, explain, logger_of
from lsms_rt.engine.tensorrt.variant import HARDWARE, TensorRtVariant, load
from lsms_rt.errors import EngineError, GpuNotFoundError, InputError
from lsms_rt.machine.gpu import query_driver

from . import tensorrt_layers as layers

# alias of version 0.1
from .options import PlanOptions as PlanOptions

Report = dict[str, Any]
log = logging.getLogger("lsms_rt")


# (min, opt, max) batch.
Profile = tuple[int, int, int]
# Called with phase, step, number of steps.
Progress = Callable[[str, int, int], None]


def check_builder(variant: TensorRtVariant, options: PlanOptions) -> None:
    """Check everything that would stop :func:`build_plan`, before the expensive steps.

    Raises:
        InputError: the library does not support the options.
        MachineError: the library is missing.
        GpuNotFoundError: there is no GPU, on which TensorRT measures kernels.
    """
    options.check(variant)
    library = load(variant)
    _hardware_level(library, options)
    problem = query_driver().problem
    if problem and not variant.portable:
        raise GpuNotFoundError(
            f"{variant.title} builds on the GPU that will run the engine: {problem}; run lsms-rt doctor for details"
        )


def build_plan(
    variant: TensorRtVariant, graph: Path, profile: Profile, options: PlanOptions, progress: Progress | None = None
) -> tuple[bytes, Report]:
    """Build the plan of the ONNX file ``graph``.

    Args:
        variant: the library.
        graph: the file.
        profile: (min, opt, max) batch.
        options: of the builder.
        progress: called with phase, step and number of steps; an exception in it stops the build.

    Returns:
        The plan, and a report of its layers.

    Raises:
        EngineError: the graph cannot be parsed or built.
        InputError, MachineError: as :func:`check_builder`.
    """
    options.check(variant)
    library = load(variant)
    logger = logger_of(library)
    messages, mark = logger.messages, logger.messages.mark()
    try:
        builder = library.Builder(logger)
    except TypeError as error:
        # The bindings raise it if the library returned no builder.
        raise explain(f"{variant.title} could not create a builder", messages.errors(mark)) from error
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, logger, graph)
    config = builder.create_builder_config()
    _configure(library, variant, config, options)
    config.progress_monitor = _monitor(library, messages, progress or (lambda *_: None))
    _add_profile(builder, network, config, profile, graph.name)
    if options.timing_cache is not None:
        _read_timing_cache(config, options.timing_cache)
    mark, messages.interrupt = messages.mark(), None
    with messages.recording() as recorded, _interruptible(messages):
        plan = builder.build_serialized_network(network, config)
    if messages.interrupt is not None:
        raise messages.interrupt
    if plan is None:
        raise explain(f"{variant.title} did not build {graph.name}", messages.errors(mark))
    if options.timing_cache is not None:
        _write_timing_cache(config, options.timing_cache)
    data = bytes(plan)
    read_header(data, f"the plan of {graph.name}")
    report = {"library": variant.title, "version": library.__version__, "bytes": len(data)}
    return data, report | _layers(library, logger, data, recorded, options.version_compatible)


@contextmanager
def _interruptible(messages: Messages) -> Iterator[None]:
    """Record Ctrl-C until the library asks if it should continue: it swallows exceptions of its callbacks."""
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
    """Parse a graph.  Text that is not ONNX "parses" into a network without outputs, so those are counted."""
    parser = library.OnnxParser(network, logger)
    parsed = parser.parse(graph.read_bytes())
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    texts = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
    if not parsed or not network.num_outputs:
        raise EngineError(f"TensorRT cannot read {graph.name}: {' | '.join(texts[:3]) or 'it has no outputs'}")


def _configure(library: Any, variant: TensorRtVariant, config: Any, options: PlanOptions) -> None:
    # On by default: it would round fp32 to the 11 bits of fp16.
    config.clear_flag(library.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    level = _hardware_level(library, options)
    config.hardware_compatibility_level = level
    # The library rejects a level with nothing but a line in its log.
    if config.hardware_compatibility_level != level:
        raise EngineError(
            f"--hardware {options.hardware}: {variant.title} {library.__version__} rejected this option; "
            "use --hardware none"
        )
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    # RTX writes the details of its layers into its log, for the report, and TensorRT into the plan.
    verbosity = library.ProfilingVerbosity
    config.profiling_verbosity = verbosity.DETAILED if variant.portable else verbosity.LAYER_NAMES_ONLY
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            capability = getattr(library.ComputeCapability, target.replace("_", "").upper())
            if not config.set_compute_capability(capability, index):
                raise EngineError(
                    f"{variant.title} {library.__version__} does not build for {target}; use another --target"
                )


def _hardware_level(library: Any, options: PlanOptions) -> Any:
    """Return the library's value for ``--hardware``.  Raises :class:`InputError` if an old version does not have it."""
    levels, name = library.HardwareCompatibilityLevel, HARDWARE[options.hardware]
    if not hasattr(levels, name):
        raise InputError(
            f"--hardware {options.hardware}: TensorRT {library.__version__} has no {name}; install a newer "
            "one, or remove the option"
        )
    return getattr(levels, name)


def _monitor(library: Any, messages: Messages, progress: Progress) -> Any:
    """Return a monitor that calls ``progress``, and stops the build after Ctrl-C or an exception.

    An exception cannot pass through the library, so it is kept and raised after the build.
    """

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def _report(self, phase: str, step: int, steps: int) -> None:
            try:
                progress(phase, step, steps)
            except BaseException as error:
                messages.interrupt = error

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            self._report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1, self.steps.get(phase_name, 0))
            return messages.interrupt is None

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 0)
            self._report(phase_name, steps, steps)

    return Monitor()


def _add_profile(builder: Any, network: Any, config: Any, batches: Profile, what: str) -> None:
    """Add a profile over all inputs.  Names come from the network, since a wrong one would be accepted silently."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] != -1 or -1 in shape[1:]:
            raise EngineError(f"{what}: input {tensor.name} has shape {shape}; only the first axis may be dynamic")
        profile.set_shape(tensor.name, *(tuple(batch if size == -1 else size for size in shape) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(
            f"{what}: TensorRT rejected the profile of batches {batches}; use another --max-batch or --opt-batch"
        )


def _read_timing_cache(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise InputError(f"{path} is not a timing cache of this TensorRT and GPU; use another --timing-cache")


def _write_timing_cache(config: Any, path: Path) -> None:
    """Write the timing cache; a failure slows down the next build, but must not fail this one."""
    cache = config.get_timing_cache()
    try:
        if cache is not None:
            path.write_bytes(bytes(cache.serialize()))
    except OSError as error:
        log.warning("%s: the timing cache was not written (%s)", path, error.strerror)


def _layers(library: Any, logger: Any, plan: bytes, recorded: list[str], host_code: bool) -> Report:
    """Report the layers from the builder's log or, if it has none, from the engine inspector, which needs a GPU.

    A failure is written into the report, since it must not fail the build.
    """
    rows = layers.from_log(recorded)
    if rows:
        memory = [line for line in recorded if line.startswith(("Total Activation", "Total Weights", "Max Scratch"))]
        return {"source": "builder's log", "summary": layers.summary(rows), "memory": memory, "layers": rows}
    try:
        runtime = library.Runtime(logger)
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(library.LayerInformationFormat.JSON)
        rows = layers.from_inspector(json.loads(text, strict=False))
    # The library returned None instead of an engine or inspector, or something that is not JSON.
    except (AttributeError, TypeError, ValueError) as error:
        return {
            "source": "none",
            "problem": f"the engine inspector is not available ({error})",
            "summary": layers.summary([]),
            "layers": [],
        }
    return {"source": "engine inspector", "summary": layers.summary(rows), "layers": rows}
