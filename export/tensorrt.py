"""A plan of TensorRT, or of TensorRT for RTX, from an ONNX graph.

The networks are strongly typed: precision is what the graph says.  Both libraries report most failures as None, False
or a line in a log; here each is an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt.engine.tensorrt.flavour import RTX_TARGETS, Flavour, load
from lsms_rt.engine.tensorrt.header import read_header
from lsms_rt.engine.tensorrt.messages import explain, logger_of
from lsms_rt.engine.tensorrt.refuse import HARDWARE
from lsms_rt.errors import EngineError, InputError

from . import layers

Report = dict[str, Any]
log = logging.getLogger("lsms_rt")


@dataclass(frozen=True)
class PlanOptions:
    """What a builder is told.  ``profile``: (min, opt, max) batch; ``targets`` ("sm_86", ...): of RTX only, () for all.

    ``workspace_mib``: scratch memory that a layer may take, None for all of the GPU's.  ``timing_cache``: a file of
    measured kernels that is read, if it exists, and written again.  ``hardware`` as in ``refuse.HARDWARE``.
    """

    profile: tuple[int, int, int]
    targets: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str = "none"
    optimization_level: int | None = None

    def check(self, flavour: Flavour) -> None:
        """Raise :class:`InputError` for what the library cannot do."""
        unknown = [target for target in self.targets if target not in RTX_TARGETS]
        if self.targets and not flavour.portable:
            raise InputError(
                "--target is for --backend tensorrt-rtx; TensorRT builds for the GPU that it runs on, "
                "or --hardware same-capability or ampere+"
            )
        if unknown:
            raise InputError(f"--target {','.join(unknown)}: {flavour.title} builds for {', '.join(RTX_TARGETS)}")
        if self.hardware not in HARDWARE:
            raise InputError(f"--hardware {self.hardware}; choose from {', '.join(HARDWARE)}")
        if flavour.portable and (self.hardware != "none" or self.version_compatible or self.timing_cache):
            raise InputError(
                f"--hardware, --version-compatible and --timing-cache are for --backend tensorrt; {flavour.title} "
                "compiles for a GPU when it meets it: --target lists those that it may meet"
            )
        low, best, most = self.profile
        if not 1 <= low <= best <= most:
            raise InputError(f"profile {self.profile}: give batches with 1 <= min <= opt <= max")

    def to_dict(self) -> dict[str, Any]:
        """What a manifest keeps of them."""
        return {
            "hardware": self.hardware,
            "version_compatible": self.version_compatible,
            "workspace_mib": self.workspace_mib,
            "optimization_level": self.optimization_level,
        }


def build_plan(
    flavour: Flavour, graph: Path, options: PlanOptions, progress: Callable[[str, int, int], None] | None = None
) -> tuple[bytes, Report]:
    """The plan of the ONNX file ``graph``, and a report of its layers.

    ``progress`` is told phase, step and steps.  Raises :class:`EngineError` where the graph cannot be parsed or built,
    ``EnvironmentProblem`` where the library or (for TensorRT) a GPU is missing.
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
    _configure(library, flavour, config, options, progress)
    _add_profile(builder, network, config, options.profile, graph.name)
    if options.timing_cache is not None:
        _read_timing_cache(config, options.timing_cache)
    mark = messages.mark()
    with messages.recording() as said:
        plan = builder.build_serialized_network(network, config)
    plan = _made(plan, f"{flavour.title} did not build {graph.name}", messages.errors(mark))
    if options.timing_cache is not None:
        options.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    data = bytes(plan)
    read_header(data, f"the plan of {graph.name}")
    report = {"library": flavour.title, "version": library.__version__, "bytes": len(data)}
    return data, report | _layers(library, logger, data, said)


def _made(result: Any, what: str, said: list[str]) -> Any:
    if result is None:
        raise explain(what, said)
    return result


def _parse(library: Any, network: Any, logger: Any, graph: Path) -> None:
    """Garbage in text form "parses" into a network without outputs, so those are counted."""
    parser = library.OnnxParser(network, logger)
    parsed = parser.parse(graph.read_bytes())
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
    if not parsed or not network.num_outputs:
        raise EngineError(f"{graph.name} is no graph for TensorRT: {' | '.join(said[:3]) or 'it has no outputs'}")


def _configure(
    library: Any, flavour: Flavour, config: Any, options: PlanOptions, progress: Callable[[str, int, int], None] | None
) -> None:
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware != "none":
        level = options.hardware.replace("ampere+", "ampere-plus").replace("same-capability", "same-compute-capability")
        asked = f"--hardware {options.hardware}"
        wanted = _member(library.HardwareCompatibilityLevel, level.upper().replace("-", "_"), asked, library)
        config.hardware_compatibility_level = wanted
        if config.hardware_compatibility_level != wanted:  # refused with a line in the log
            raise EngineError(f"{asked}: {flavour.title} {library.__version__} does not take it here")
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # names and types of layers, for the report
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            capability = getattr(library.ComputeCapability, target.replace("_", "").upper())
            if not config.set_compute_capability(capability, index):
                raise EngineError(f"{flavour.title} {library.__version__} refuses to build for {target}")
    if progress is not None:
        config.progress_monitor = _monitor(library, progress)


def _member(enum: Any, name: str, asked: str, library: Any) -> Any:
    """A value of an enumeration that older versions lack."""
    if not hasattr(enum, name):
        raise InputError(f"{asked}: TensorRT {library.__version__} has no {name}; take a newer one, or leave it out")
    return getattr(enum, name)


def _monitor(library: Any, progress: Callable[[str, int, int], None]) -> Any:
    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

    return Monitor()


def _add_profile(builder: Any, network: Any, config: Any, batches: tuple[int, int, int], what: str) -> None:
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


def _layers(library: Any, logger: Any, plan: bytes, said: list[str]) -> Report:
    """Layers as the inspector gives them; where it needs a GPU and there is none, what the builder's log says."""
    from lsms_rt.gpu import look

    if look().problem is None:
        engine = library.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is not None:
            text = engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.JSON)
            rows = layers.from_inspector(json.loads(text))
            return {"source": "engine inspector", "summary": layers.summary(rows), "layers": rows}
    rows = layers.from_log(said)
    memory = [line for line in said if line.startswith(("Total Activation", "Total Weights", "Max Scratch"))]
    return {"source": "builder's log", "summary": layers.summary(rows), "memory": memory, "layers": rows}
