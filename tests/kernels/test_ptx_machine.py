"""The integer part of PTX and the latency model, on a few lines of PTX each."""

from __future__ import annotations

import numpy as np
import pytest

from lsms_rt.bench.gpu import roofline
from lsms_rt.bench.gpu.estimate import model_microseconds
from lsms_rt.kernels import latency, ptx_trace
from lsms_rt.kernels.ptx_code import parse
from lsms_rt.kernels.ptx_integers import NotComputable
from lsms_rt.kernels.ptx_machine import POINTER, Machine

HEAD = """.version 8.5
.target sm_80
.visible .entry k(
\t.param .u64 .ptr .global .align 1 k_param_0,
\t.param .u64 .ptr .global .align 1 k_param_1
)
.reqntid 64
{
\t.reg .pred %p<9>;
"""


def run(*lines: str, program: tuple[int, int, int] = (3, 0, 0)) -> Machine:
    machine = Machine(parse(HEAD + "\n".join(f"\t{line};" if ":" not in line else line for line in lines) + "\n}\n"),
                      np.array([program]))  # fmt: skip
    for _ in machine.run():
        pass
    return machine


def value(text: str, *before: str, bits: int = 32) -> int:
    machine = run(*before, f"{text}", "ret")
    name = text.split()[1].rstrip(",")
    return int(np.asarray(machine.registers[name]).ravel()[-1]) & (1 << bits) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add.s32 %r1, %r0, -1", 0xFFFFFFFB), ("sub.s32 %r1, 3, 5", 0xFFFFFFFE), ("mul.lo.s32 %r1, %r0, -2", 8),
        ("mul.wide.s32 %rd1, %r0, 3", -12), ("mul.wide.u32 %rd1, %r0, 2", 2 * 0xFFFFFFFC), ("shr.s32 %r1, %r0, 1", -2),
        ("shr.u32 %r1, %r0, 28", 15), ("shl.b32 %r1, 3, 31", 1 << 31), ("bfe.u32 %r1, 0x1234, 4, 8", 0x23),
        ("bfe.s32 %r1, 16, 4, 1", -1), ("mad.lo.s32 %r1, 3, 5, 7", 22), ("selp.b32 %r1, 1, 2, 0", 2),
        ("cvt.s64.s32 %rd1, %r0", -4), ("cvt.u64.u32 %rd1, %r0", 0xFFFFFFFC), ("mul.hi.u16 %rs1, 52429, 25", 20),
        ("prmt.b32 %r1, 0x44332211, 0, 0x5410U", 0x2211), ("xor.b32 %r1, %r0, -1", 3), ("min.s32 %r1, %r0, 1", -4),
        ("neg.s32 %r1, 5", -5), ("mov.u32 %r1, %tid.x", 63), ("mov.u32 %r1, %ctaid.x", 3),
    ],
)  # fmt: skip
def test_integers_are_those_of_the_manual(text: str, expected: int) -> None:
    bits = 64 if "%rd1" in text else 16 if "%rs1" in text else 32
    assert value(text, "mov.b32 %r0, -4", bits=bits) == expected & (1 << bits) - 1


def test_loops_masks_and_skips() -> None:
    machine = run(
        "ld.param.b64 %rd1, [k_param_1]", "mov.b32 %r1, 0", "mov.u32 %r2, %tid.x", "$L__loop:", "add.s32 %r1, %r1, 1",
        "setp.lt.s32 %p1, %r1, 5", "@%p1 bra $L__loop", "setp.gt.u32 %p2, %r2, 31", "@%p2 bra $L__end",
        "mov.b32 %r1, 9", "$L__end:", "setp.eq.b32 %p3, %r2, 7", "@%p3 mov.b32 %r1, 1", "mov.b32 {%rs1, %rs2}, 0x20001",
        "ret",
    )  # fmt: skip
    assert int(machine.registers["%rd1"]) == 2 * POINTER
    assert machine.registers["%r1"].tolist() == [1 if i == 7 else 9 if i < 32 else 5 for i in range(64)]
    assert (int(machine.registers["%rs1"]), int(machine.registers["%rs2"])) == (1, 2)


def test_threads_go_one_of_two_ways() -> None:
    machine = run(
        "mov.u32 %r2, %tid.x", "mov.b32 %r1, 0", "setp.gt.u32 %p1, %r2, 31", "@%p1 bra $L__other",
        "add.s32 %r1, %r1, 1", "bra.uni $L__end", "$L__other:", "add.s32 %r1, %r1, 2", "$L__end:", "add.s32 %r1, %r1, 4", "ret",
    )  # fmt: skip
    assert machine.registers["%r1"].tolist() == [5] * 32 + [6] * 32


def test_what_depends_on_data_is_unknown_and_cannot_decide() -> None:
    load = ("ld.param.b64 %rd1, [k_param_0]", "ld.global.b32 { %r1 }, [ %rd1 + 0 ]", "add.s32 %r2, %r1, 1")
    machine = run(*load, "ret")
    assert "%r2" not in machine.registers
    with pytest.raises(NotComputable, match="the address .* depends on data"):
        machine.address("[%r2+4]")
    with pytest.raises(NotComputable, match="the branch depends on data"):
        run(*load, "setp.eq.b32 %p1, %r2, 0", "@%p1 bra $L__end", "$L__end:", "ret")


def walk(*lines: str, warps: int = 4) -> latency.Timeline:
    code = parse(HEAD + "\n".join(f"\t{line};" for line in lines) + "\n}\n")
    return latency.walk([(instruction, False) for instruction in code.instructions], warps)


LOAD, NEXT = "ld.global.b32 { %r1 }, [ %rd1 + 0 ]", "ld.global.b32 { %r2 }, [ %rd2 + 0 ]"


def test_dependent_loads_are_a_chain_and_independent_ones_are_not() -> None:
    use = "add.f32 %f1, %r1, %r2"
    side_by_side = walk(LOAD, NEXT, use, "ret")
    dependent = walk(LOAD, "mad.wide.s32 %rd2, %r1, 4, %rd1", NEXT, use, "ret")
    behind_a_barrier = walk(LOAD, "st.shared.b32 [%r9], %r1", "bar.sync 0", NEXT, use, "ret")
    assert (side_by_side.rounds, dependent.rounds, behind_a_barrier.rounds) == (1, 2, 2)
    load = latency.FITTED.load
    assert load < side_by_side.cycles < 1.2 * load < 2 * load < dependent.cycles < behind_a_barrier.cycles < 2.4 * load


def test_a_copy_is_waited_for_and_a_product_takes_its_time() -> None:
    copy = ("cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2", "cp.async.commit_group")
    assert walk(*copy, "cp.async.wait_group 1", "bar.sync 0", "ret").rounds == 0
    assert walk(*copy, "cp.async.wait_group 0", "bar.sync 0", "ret").rounds == 1
    product = "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%f1}, %rd1, %rd2, %p1, 1, 1, 0, 0"
    done = walk(product, product, "wgmma.commit_group.sync.aligned", "wgmma.wait_group.sync.aligned 0", "ret", warps=8)
    # Two warpgroups share the tensor cores: 2 x 2 x 32 cycles, then the way out.
    assert done.cycles >= 128 + latency.ASYNC_PRODUCT


def test_a_launch_takes_gap_waves_and_bytes() -> None:
    line, gpu = walk(LOAD, "ret"), latency.H200
    one = latency.launch_seconds(line, 1, 128, 32, 0, 0)
    assert one > gpu.gap + latency.FITTED.launch
    assert latency.launch_seconds(line, 132 * 16, 128, 32, 0, 0) == pytest.approx(one, rel=0.1)
    # 100 KiB of shared memory: two programs an SM.
    assert latency.resident(128, 32, 100 * 1024, gpu) == 2
    assert latency.launch_seconds(line, 132 * 4, 128, 32, 100 * 1024, 0) > one
    assert latency.launch_seconds(line, 1, 128, 32, 0, 5.5e12) > 1


def test_the_time_of_a_model_is_that_of_all_its_blocks() -> None:
    trace = ptx_trace.Trace("k", "c320_h32_w32_t32_fp16", *[1] * 14, microseconds=2.0)
    assert model_microseconds([trace], "base") == {"k": 24.0}


def test_the_least_latency_stands_beside_the_floor() -> None:
    gpu = roofline.Gpu("toy", dram=1.0, l2=1.0, l2_bytes=1.0, tensor=1.0, scalar=1.0, gap=2.0, load=3.0)
    assert roofline.latency_floor([roofline.Step("s", 0, 0)] * 4, gpu) == 20
