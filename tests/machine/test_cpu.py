"""What the CPU has, from the lists of processors of machines that are not here."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_cpus
import pytest

from lsms_rt.machine.cpu import CPUINFO, Cpu, cpu_count, find


def found(folder: Path, text: str | bytes) -> Cpu:
    file = folder / "cpuinfo"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return find(file)


@pytest.mark.parametrize(
    ("text", "name", "instructions", "bf16", "int8"),
    [
        (
            fake_cpus.ZEN5,
            "AMD EPYC 9655 96-Core Processor",
            "avx2 avx512f avx_vnni avx512_vnni avx512_bf16",
            "avx512_bf16",
            "avx512_vnni",
        ),
        (
            fake_cpus.ICE_LAKE,
            "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
            "avx2 avx512f avx512_vnni",
            None,
            "avx512_vnni",
        ),
        (
            fake_cpus.SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8480+",
            "avx2 avx512f avx_vnni avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16",
            "amx_bf16",
            "amx_int8",
        ),
        (fake_cpus.ALDER_LAKE, "12th Gen Intel(R) Core(TM) i7-1260P", "avx2 avx_vnni", None, "avx_vnni"),
        (fake_cpus.HASWELL, "Intel(R) Core(TM) i5-4590 CPU @ 3.30GHz", "avx2", None, None),
        (fake_cpus.OLD, "Intel(R) Atom(TM) CPU D525 @ 1.80GHz", "", None, None),
        (fake_cpus.RASPBERRY_PI, "Raspberry Pi 5 Model B Rev 1.0", "asimd", None, None),
        (fake_cpus.GRAVITON3, "Arm, implementer 0x41, part 0xd40", "asimd sve i8mm bf16", "bf16", "i8mm"),
    ],
    ids=["Zen 5", "Ice Lake", "Sapphire Rapids", "Alder Lake", "Haswell", "Atom", "Raspberry Pi", "Graviton 3"],
)
def test_what_a_cpu_has(
    tmp_path: Path, text: str, name: str, instructions: str, bf16: str | None, int8: str | None
) -> None:
    cpu = found(tmp_path, text)
    assert cpu == Cpu(name=name, instructions=tuple(instructions.split()))
    assert (cpu.bf16, cpu.int8, cpu.known, cpu.arm) == (bf16, int8, True, "asimd" in instructions)
    assert str(cpu).startswith(f"{name}; {', '.join(instructions.split()) or 'none of avx2, '}")


def test_an_instruction_counts_if_all_cores_have_it(tmp_path: Path) -> None:
    """The small cores of a CPU may lack what its large ones have."""
    first, second = fake_cpus.GRAVITON3.rstrip().split("\n\n")
    cpu = found(tmp_path, "\n\n".join([first, second.replace(" i8mm", "").replace(" sve ", " ")]))
    assert cpu.instructions == ("asimd", "bf16")
    assert (cpu.bf16, cpu.int8) == ("bf16", None)


@pytest.mark.parametrize(
    "text",
    ["", "\n\n\n", "flags", "flags\t:\n", b"\xff\xfe\x00flags : avx2", "vmx flags\t: avx512_bf16", "isa : rv64gc"],
)
def test_a_damaged_or_strange_list_says_nothing(tmp_path: Path, text: str | bytes) -> None:
    cpu = found(tmp_path, text)
    assert cpu.instructions is None and not cpu.known
    assert (cpu.bf16, cpu.int8, cpu.arm) == (None, None, False)
    assert cpu.name and str(cpu).endswith("; instructions: unknown on this system")


def test_a_list_that_ends_early_is_read_so_far(tmp_path: Path) -> None:
    assert found(tmp_path, fake_cpus.ZEN5[: fake_cpus.ZEN5.index("bugs")]).bf16 == "avx512_bf16"


def test_a_system_without_the_list_is_unknown(tmp_path: Path) -> None:
    assert find(tmp_path / "missing").instructions is None
    assert find(tmp_path).instructions is None


@pytest.mark.skipif(sys.platform != "linux" or not CPUINFO.exists(), reason="only Linux has the list")
def test_this_cpu() -> None:
    assert find().name and find().known


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", None), ("150000 100000", 2), ("10000 100000", 1), ("x", None)]
)
def test_a_containers_share_limits_the_threads(tmp_path: Path, text: str, count: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    usable = cpu_count(tmp_path / "none")
    assert usable >= 1
    assert cpu_count(tmp_path / "cpu.max") == min(usable, count or usable)
