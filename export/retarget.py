"""Make an engine for another backend of the graphs that an engine has, as they are.

Needs neither PyTorch nor the checkpoint: a laptop makes an engine of OpenVINO of the engine that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lsms_rt
from lsms_rt.atomic import work_folder
from lsms_rt.engine.manifest import EngineDirectory, Manifest, format_of, open_directory
from lsms_rt.engine.registry import BACKENDS, ONNXRUNTIME, BackendSpec
from lsms_rt.errors import InputError, chain_cut

from .directory import check_output, check_source, copied, measured_with, relabeled
from .options import GateOptions, check_gate, check_gate_packages, check_precision, report_path, skipped
from .references import of_engine
from .verify import bundled_examples, compare, judge

# What float32 graphs can be computed in.
FLOATING = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class RetargetOptions:
    """Options of ``retarget_engine``.

    Attributes:
        backend: the new engine's, one whose files are graphs.
        precision: "fp32" or "bf16", of float32 graphs; None for the engine's own.
        rest: precision of an INT8 engine's other layers, "fp32" or "bf16"; None for the engine's own.
        gate: options of the accuracy gate, which an engine below fp32 must pass.
        report: HTML file for the gate's report; None for ``NAME.report.html`` beside the engine.
        digest: "sha256:HEX" of the engine that is read, from a trusted source; None: no check.
        force: whether an engine at the output is replaced.

    Raises:
        InputError: the backend's engines are no graphs.
    """

    backend: str
    precision: str | None = None
    rest: str | None = None
    gate: GateOptions = field(default_factory=GateOptions)
    report: Path | None = None
    digest: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        graphs = [spec.name for spec in BACKENDS.values() if not spec.builds_plans]
        if self.backend not in graphs:
            raise InputError(f"--backend {self.backend}; choose from {', '.join(graphs)}")


@chain_cut
def retarget_engine(
    source: Path, output: Path, options: RetargetOptions, say: Callable[[str], None] = lambda _: None
) -> Manifest:
    """Write an engine of ``source``'s graphs for another backend or precision.

    Its reference is ONNX Runtime, which computes the same graphs in float32: it is compared with that and, below fp32,
    must pass the accuracy gate against it.

    Args:
        source: an engine of float32 graphs, INT8 layers or not.
        output: the engine directory to write.
        options: what to make of it.
        say: called with a message at every step.

    Returns:
        The manifest of the new engine.

    Raises:
        InputError, EngineError, MachineError, AccuracyGateError: as ``build_engine``.
    """
    check_output(output, options.force, options.report, source)
    engine, spec = open_directory(source, options.digest), BACKENDS[options.backend]
    precision, rest = _precisions(engine, spec, options)
    check_gate(precision, options.gate, options.report)
    if precision != "fp32":
        check_gate_packages(options.gate)
    spec.load().check_machine(precision, rest)
    exact = ("int8", "fp32") if rest else ("fp32", None)
    with work_folder(output) as work:
        made = copied(relabeled(engine, spec.name, precision, rest), work / "graphs").noted(
            backend_version=spec.load().library_version(spec.name),
            format=format_of(engine.manifest.crop, precision, rest),
            gate={},
            built_by=f"lsms-rt {lsms_rt.__version__}",
        )
        reference = of_engine(relabeled(engine, ONNXRUNTIME.name, *exact))
        say(f"comparing with {reference.name}, on the bundled slices")
        parity = compare(reference, made.open(), bundled_examples())
        judge(parity, precision)
        accuracy = parity.to_dict() | {"measured_with": measured_with(made.manifest), "against": reference.name}
        made, page = made.noted(accuracy=accuracy), None
        if precision != "fp32" and options.gate.sentences:
            # Only here: its report needs more packages.
            from . import gate

            data = gate.held_out_data(options.gate, None, work, made.manifest.image_size)
            say(f"accuracy gate: asking both {len(data.rows)} held-out sentences")
            refused = report_path(options.report, output, refused=True)
            record, page = gate.run(reference, made, made, data, options.gate, refused)
            made = made.noted(gate=_verdict(engine.manifest, record))
        elif precision != "fp32":
            made = made.noted(gate=skipped(options.gate))
        made.finish(output)
        if page is not None:
            gate.write_report(report_path(options.report, output), page)
    return made.manifest


def _precisions(engine: EngineDirectory, spec: BackendSpec, options: RetargetOptions) -> tuple[str, str | None]:
    """Return the new engine's precision, and that of the layers that are not INT8; None if none is INT8.

    Raises:
        InputError: the engine's files are no graphs, or not in float32, or the backend does not run the precision.
    """
    check_source(engine)
    manifest, path = engine.manifest, engine.path
    int8 = manifest.precision == "int8"
    own = str(manifest.rest) if int8 else manifest.precision
    if own not in FLOATING:
        with_rest = " --rest fp32" if int8 else ""
        raise InputError(
            f"--from {path}: its graphs are in {own}{' beside INT8' if int8 else ''}, and {spec.name} takes float32 "
            f"ones; build it with --precision {'int8' if int8 else 'fp32'}{with_rest}"
        )
    if options.precision is not None and (options.precision == "int8") != int8:
        raise InputError(
            f"--from {path} is an engine in {manifest.precision}, and --from does not quantize; remove --precision "
            f"{options.precision}, or build from a checkpoint"
        )
    # In float32 where the backend has no other.
    precision = options.precision or ("int8" if int8 else own if own in spec.precisions else "fp32")
    rest = options.rest or (own if own in spec.rests else "fp32") if int8 else None
    check_precision(spec, precision, rest if int8 else options.rest)
    return precision, rest


def _verdict(source: Manifest, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the gate of an engine whose reference was not fp32: ``source``'s INT8 layers were judged."""
    if source.precision != "int8":
        return record
    if not source.gate_verdict.startswith("passed"):
        return source.gate
    return record | {"of": "what changed since its INT8 graphs passed against PyTorch; together they were not asked"}
