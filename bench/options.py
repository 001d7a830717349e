"""Options of ``lsms-rt bench`` and its subcommands: names and defaults.

The command line reads them from here, so this module imports no library but NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from lsms_rt.model.config import TextConfig

from .timing import FULL, QUICK, Effort

# Relative difference that `bench compare` ignores: two equal runs on a shared host differed by up to this.
NOISE = 0.05
# Sensors average over tenths of a second, so that a shorter run would measure the sensor.
ENERGY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of ``lsms-rt bench ENGINE``.

    Attributes:
        threads: CPU threads; None for one per core.
        device: "cpu", "cuda", "cuda:1" ...; None for a GPU if the engine's backend can use one.
        cuda_graph: whether a TensorRT engine runs with CUDA graphs.
        trust_host_code: whether a version-compatible TensorRT engine may run the code that it brings for the CPU.
        effort: how long each latency is measured.
        batches: batch sizes of the throughput; None for 1, 2, 4 ... up to the engine's largest.
        series: slices of the series whose throughput is measured.
        rounds: measurements of each throughput.
        cold_starts: processes started to measure the cold start.
        energy_s: seconds over which energy is measured; 0 skips it.
    """

    threads: int | None = None
    device: str | None = None
    cuda_graph: bool = True
    trust_host_code: bool = False
    effort: Effort = FULL
    batches: tuple[int, ...] | None = None
    series: int = 32
    rounds: int = 5
    cold_starts: int = 5
    energy_s: float = ENERGY_S

    def quick(self) -> EngineOptions:
        """Return the same options with the least effort: for a first look, not for publication."""
        return replace(self, effort=QUICK, series=8, rounds=1, cold_starts=1, energy_s=0)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of ``lsms-rt bench serve``.

    Attributes:
        threads: CPU threads of each worker; None for its share of the cores.
        seconds: length of each measurement.
        clients: numbers of clients of the closed loop.
        rounds: turns in which a request and the engine alone are compared.
    """

    threads: int | None = None
    seconds: float = 10.0
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 20

    def quick(self) -> ServeOptions:
        """Return the same options with the least effort: for a first look, not for publication."""
        return replace(self, seconds=1.0, clients=(1, 4), rounds=2)


@dataclass(frozen=True, kw_only=True)
class PeersOptions:
    """Options of ``lsms-rt bench peers``; each contender runs the series once per round, in each of its processes.

    Attributes:
        checkpoint: folder of the weights; None for random ones of ``preset``, with BERT-base as the text encoder.
        preset: preset of random weights.
        image_size: side of the square input, in pixels.
        slices: slices of the series, all with one sentence.
        launches: processes per contender.
        rounds: rounds per launch.
        threads: CPU threads; None for the library's choice.
        seed: random seed of the inputs and of the order of the contenders.
        names: contenders to run beside our engine; None for all.
    """

    checkpoint: Path | None = None
    preset: str = "tiny"
    image_size: int = 512
    slices: int = 32
    launches: int = 5
    rounds: int = 3
    threads: int | None = None
    seed: int = 0
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """Options of ``lsms-rt bench scaling``.

    Attributes:
        backend: the backend of the engines, one that runs on a CPU.
        precision: their precision; INT8 is that of the bundled recipe's layers, with ranges of noise.
        preset: preset of the random weights.
        image_size: side of the input in pixels, on every axis but ``sizes``.
        sizes: sides of the input to measure, in pixels.
        batches: slices per call.
        tokens: lengths of sentences, and of the sentences that engines are built for.
        slices: slices of a series.
        rounds: measurements of each point.
        text: text encoder of the axes that involve sentences; BERT-base by default.
    """

    backend: str = "onnxruntime"
    precision: str = "fp32"
    preset: str = "tiny"
    image_size: int = 512
    sizes: tuple[int, ...] = (128, 256, 384, 512, 640)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    tokens: tuple[int, ...] = (8, 16, 32, 64)
    slices: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 9
    text: TextConfig = field(default_factory=TextConfig)
