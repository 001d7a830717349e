"""A latency model: the cycles of one program from the sequence of its instructions, and the time of a launch.

A warp issues its instructions in order; each waits for its operands (a scoreboard), a barrier for the stores before it,
and a wait for the copies or products that it names.  What it leaves out: ptxas orders instructions again, banks of
shared memory conflict, warps do not run in step, the L2 cache has far and near halves.  So it ranks kernels and
finds chains of latency; it does not replace a measurement.  ``FITTED`` are the numbers that were adjusted to times
measured on one GPU (an NVIDIA H200, ``lsms_rt.bench.gpu.estimate`` compares); all others are stated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .ptx_code import Instruction

# Cycles from issue to result on Hopper.  "about": public microbenchmarks (arXiv 2402.13499 and 2501.12084); others
# are assumed.
SHARED = 29  # about
CACHED = 40  # about: a load of what the program has loaded before, from the L1 cache, or of nothing
PRODUCT = 33  # about: mma.sync m16n8k16
ASYNC_PRODUCT = 32  # assumed: on top of the N / 2 cycles of wgmma m64nNk16, which is its throughput (about)
BARRIER = 20  # assumed, when all warps have arrived
SHUFFLE = 24  # assumed
SPECIAL = 24  # assumed: exp2, rsqrt
DIVIDE = 40  # assumed: a reciprocal and its corrections
ARITHMETIC = 4  # about
INTEGER = 5  # about

# Issue slots of a quarter of an SM, per instruction of a warp: 32 threads over the units of that quarter.
SLOTS = {"special": 8.0, "shuffle": 4.0, "integer": 2.0, "convert": 2.0, "product": 4.0, "other": 1.0}
# Bytes per cycle of an SM, to shared memory or the L1 cache.
SHARED_BYTES, GLOBAL_BYTES = 128, 64


@dataclass(frozen=True)
class Fitted:
    """Numbers adjusted to times measured on one NVIDIA H200.

    Attributes:
        load: cycles of a load from the L2 cache, with the way there and back under load.
        launch: seconds of a launch that are neither the gap nor the program: start of programs, drain of stores.
    """

    load: float = 650.0
    launch: float = 0.6e-6


FITTED = Fitted()


@dataclass(frozen=True)
class Processor:
    """What a launch is spread over.

    Attributes:
        multiprocessors: number of SMs.
        clock: cycles per second.
        registers: registers of an SM.
        shared: bytes of shared memory of an SM, for programs.
        threads: resident threads of an SM.
        bandwidth: bytes/s of the L2 cache.
        gap: seconds between two dependent launches in a CUDA graph.
    """

    multiprocessors: int
    clock: float
    registers: int
    shared: int
    threads: int
    bandwidth: float
    gap: float


# The gap was measured (bench/results/nvidia-h200/ceilings.json); the clock is the vendor's largest.
H200 = Processor(132, 1.98e9, 65536, 227 * 1024, 2048, 5.5e12, 0.67e-6)


@dataclass
class Timeline:
    """The walk of one warp through a program.

    Attributes:
        cycles: from the first instruction to the last.
        rounds: times that the warp had to wait for memory that it asked for after the time before: the dependent loads.
        slots: issue slots of its quarter of the SM, of one warp.
        memory: cycles of the SM's shared memory and L1 cache, of one warp.
        tensor: cycles of the tensor cores of a quarter, of one warp.
    """

    cycles: float = 0.0
    rounds: int = 0
    slots: float = 0.0
    memory: float = 0.0
    tensor: float = 0.0


# A cycle, and the number of dependent loads up to it.
Moment = tuple[float, int]


@dataclass
class _Scoreboard:
    """When values are ready.  Between two barriers or branches, only operands and issue slots hold an instruction."""

    load: float
    warps: int
    line: Timeline = field(default_factory=Timeline)
    ready: dict[str, Moment] = field(default_factory=dict)
    # The last barrier or branch, the latest start of an instruction, and the last store to shared memory after it.
    since: Moment = (0.0, 0)
    latest: Moment = (0.0, 0)
    stored: float = 0.0
    # What the instructions after it take of the quarter's issue slots, and of the SM's memory pipe.
    slots: float = 0.0
    memory: float = 0.0
    tensor_free: float = 0.0
    # Of copies and of products: those not committed yet, and the committed groups.
    loose: dict[str, Moment] = field(default_factory=dict)
    groups: dict[str, list[Moment]] = field(default_factory=lambda: {"copy": [], "product": []})

    def step(self, instruction: Instruction, cached: bool) -> None:
        kind, latency = _class_of(instruction)
        start = _later(self.since, *(self.ready[name] for name in instruction.reads if name in self.ready))
        share = max(1.0, self.warps / 4)
        if kind != "free":
            self.latest = _later(self.latest, start)
            self.line.slots += SLOTS.get(kind, 1.0)
            self.slots += SLOTS.get(kind, 1.0) * share
        if kind == "load":
            done = start[0] + self._moved(_bytes(instruction) / GLOBAL_BYTES) + (CACHED if cached else self.load)
            self._write(instruction, (done, start[1] + (not cached)))
        elif kind == "copy":
            done = start[0] + self._moved(32 * 16 / GLOBAL_BYTES) + (CACHED if cached else self.load)
            self.loose["copy"] = _later(self.loose.get("copy", (0.0, 0)), (done, start[1] + (not cached)))
        elif kind == "shared load":
            done = start[0] + self._moved(_bytes(instruction) / SHARED_BYTES) + latency
            self._write(instruction, (done, start[1]))
        elif kind == "shared store":
            self.stored = max(self.stored, start[0] + self._moved(_bytes(instruction) / SHARED_BYTES))
        elif kind == "store":
            self._moved(_bytes(instruction) / GLOBAL_BYTES)
        elif kind == "product":
            self.line.tensor += SLOTS["product"]
            self._write(instruction, (start[0] + latency, start[1]))
        elif kind == "async product":
            self.line.tensor += latency
            self.tensor_free = max(self.tensor_free, start[0]) + latency * share
            self.loose["product"] = (self.tensor_free + ASYNC_PRODUCT, start[1])
        elif kind in ("copy group", "product group"):
            name = kind.split()[0]
            self.groups[name].append(self.loose.pop(name, (0.0, 0)))
        elif kind in ("copy wait", "product wait"):
            groups, keep = self.groups[kind.split()[0]], int(instruction.operands[0])
            self._synchronize(*groups[: max(0, len(groups) - keep)])
            del groups[: max(0, len(groups) - keep)]
        elif kind == "barrier":
            self._synchronize((self.stored, 0), extra=latency)
        elif kind == "branch":
            self._synchronize()
        else:
            self._write(instruction, (start[0] + latency, start[1]))

    def finish(self) -> Timeline:
        self._synchronize((self.stored, 0))
        self.line.cycles, self.line.rounds = self.since
        return self.line

    def _synchronize(self, *moments: Moment, extra: float = 0.0) -> None:
        """Nothing that follows starts before all that came before has been issued."""
        issued = self.since[0] + max(self.slots, self.memory)
        time, rounds = _later(self.latest, self.since, (issued, 0), *moments)
        self.since = self.latest = (time + extra, rounds)
        self.slots = self.memory = 0.0

    def _moved(self, cycles: float) -> float:
        """Take the SM's memory pipe for all warps of the program."""
        self.line.memory += cycles
        self.memory += cycles * self.warps
        return cycles

    def _write(self, instruction: Instruction, ready: Moment) -> None:
        for name in instruction.writes:
            self.ready[name] = ready


def _later(*moments: Moment) -> Moment:
    return max(time for time, _ in moments), max(rounds for _, rounds in moments)


def walk(steps: Iterable[tuple[Instruction, bool]], warps: int, fitted: Fitted = FITTED) -> Timeline:
    """Walk one warp through the instructions of a program of ``warps`` warps.

    Args:
        steps: instruction, and whether it loads only what the program has loaded before.
        warps: of the program.
        fitted: adjusted numbers.
    """
    board = _Scoreboard(fitted.load, warps)
    for instruction, cached in steps:
        board.step(instruction, cached)
    return board.finish()


def resident(threads: int, registers: int, shared: int, processor: Processor) -> int:
    """Return how many programs fit on an SM at once."""
    by_registers = processor.registers // (max(registers, 16) * threads)
    by_shared = processor.shared // (shared + 1024)
    return max(1, min(processor.threads // threads, by_registers, by_shared, 32))


def launch_seconds(
    line: Timeline, programs: int, threads: int, registers: int, shared: int, traffic: float,
    processor: Processor = H200, fitted: Fitted = FITTED,
) -> float:  # fmt: skip
    """Estimate a launch in a CUDA graph, with its gap.

    Args:
        line: of one program.
        programs: of the launch, all slices.
        threads: of a program.
        registers: of a thread.
        shared: bytes of a program.
        traffic: bytes of the tensors that it reads and writes.
        processor: the GPU.
        fitted: adjusted numbers.
    """
    warps = threads // 32
    at_once = resident(threads, registers, shared, processor)
    slowest = math.ceil(programs / processor.multiprocessors)
    cycles, left = 0.0, slowest
    while left > 0:
        together = min(left, at_once)
        busy = together * max(line.slots * warps / 4, line.memory * warps, line.tensor * warps / 4)
        cycles += max(line.cycles, busy)
        left -= together
    return processor.gap + fitted.launch + max(cycles / processor.clock, traffic / processor.bandwidth)


def _bytes(instruction: Instruction) -> float:
    """Return the bytes that a warp moves."""
    if instruction.op.startswith(("ldmatrix", "stmatrix")):
        count = re.search(r"\.x(\d)", instruction.op)
        return 128.0 * int(count.group(1) if count else 1)
    return 32.0 * instruction.width


_INTEGER = (
    "add.s", "sub.s", "mul.lo", "mul.wide", "mul.hi", "mad.", "shl", "shr", "bfe", "and.b", "or.b", "xor.b", "prmt",
    "setp.lt.s", "setp.lt.u", "setp.gt.s", "setp.eq.b", "setp.ne.b", "min.u", "max.u", "min.s", "max.s",
)  # fmt: skip


def _class_of(instruction: Instruction) -> tuple[str, float]:
    """Return what an instruction occupies, and its latency."""
    op = instruction.op
    if op.startswith(("mov.", "ld.param", "cvt.u64.u32", "cvt.u32.u64", "ret", "wgmma.fence", "griddepcontrol")):
        # A copy of a register, which the assembler removes.
        return "free", 0
    if op.startswith("bra"):
        return "branch", 0
    if op.startswith("ld.global"):
        return "load", 0
    if op.startswith("cp.async.commit"):
        return "copy group", 0
    if op.startswith("cp.async.wait"):
        return "copy wait", 0
    if op.startswith("cp.async"):
        return "copy", 0
    if op.startswith(("ld.shared", "ldmatrix")):
        return "shared load", SHARED
    if op.startswith(("st.shared", "stmatrix")):
        return "shared store", 0
    if op.startswith(("st.global", "red", "atom")):
        return "store", 0
    if op.startswith(("bar.", "barrier.")):
        return "barrier", BARRIER
    if op.startswith("wgmma.mma_async"):
        columns = re.search(r"m64n(\d+)", op)
        # tf32 runs at half the rate, with half the depth of an instruction.
        return "async product", int(columns.group(1) if columns else 256) / 2
    if op.startswith("wgmma.commit"):
        return "product group", 0
    if op.startswith("wgmma.wait"):
        return "product wait", 0
    if op.startswith("mma."):
        return "product", PRODUCT
    if op.startswith("shfl"):
        return "shuffle", SHUFFLE
    if op.startswith(("ex2", "rsqrt", "rcp", "tanh", "lg2", "sqrt")):
        return "special", SPECIAL
    if op.startswith("div"):
        return "special", DIVIDE
    if op.startswith("cvt"):
        return "convert", INTEGER
    if op.startswith(_INTEGER):
        return "integer", INTEGER
    return "other", ARITHMETIC
