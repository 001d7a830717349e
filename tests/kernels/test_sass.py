"""Machine code is compared with its PTX: what ptxas 12.8 makes of gate_mix, and planted faults.

The compiler runs in another process, since the kernels of this one are interpreted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from lsms_rt.kernels import sass, sass_checks, sass_machine, toolchains
from lsms_rt.kernels.ptx import assemble
from lsms_rt.kernels.ptx_integers import NotComputable

# PTX of gate_mix for sm_90 with tiles, by Triton 3.6.0; the last ones are the default.
TILES = [{"pixels": 16, "warps": 4}, {"pixels": 32, "warps": 8}, {}]
COMPILE = """
import json, sys
from lsms_rt.kernels import gate_mix
from lsms_rt.kernels.aot import compile_launch
from lsms_rt.kernels.shape import Shape

shape = Shape(64, 128, 128)
codes = (compile_launch(gate_mix.launch(shape, **tiles), shape, "sm_90") for tiles in json.loads(sys.argv[1]))
print(json.dumps([code.ptx for code in codes]))
"""


@pytest.fixture(scope="module")
def kernels() -> list[str]:
    """Compile PTX with TILES."""
    if not toolchains.is_installed("triton"):
        pytest.skip("Triton 3.6.0 is not there; python -m lsms_rt.kernels.toolchains installs it")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = (str(toolchains.folder("triton")), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-c", COMPILE, json.dumps(TILES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return list(json.loads(done.stdout))


def machine_code(ptx: str, version: str) -> bytes:
    """Assemble with an assembler of the toolchains."""
    return assemble(ptx, str(toolchains.assemblers()[version])).cubin


@pytest.mark.slow
def test_wrong_machine_code_of_ptxas_12_8_is_found(kernels: list[str]) -> None:
    """gate_mix at 64 channels with 16 pixels and 4 warps, and with 32 and 8: an NVIDIA H200 ran them, and failed."""
    other, never_written, _ = (sass_checks.wrong_descriptors(ptx, machine_code(ptx, "ptxas 12.8")) for ptx in kernels)
    assert other
    assert "HGMMA.64x16x16.F32 at 0x" in other[0]
    assert sass_machine.UNWRITTEN not in "".join(other)
    assert sass_machine.UNWRITTEN in never_written[0]
    # Both groups of four warps.
    assert {line[-9:] for line in never_written} == {"(group 0)", "(group 1)"}


@pytest.mark.slow
def test_right_machine_code_is_right(kernels: list[str]) -> None:
    """ptxas 12.9 makes right code of all, and ptxas 12.8 of the default."""
    made = [(ptx, "ptxas 12.9") for ptx in kernels] + [(kernels[-1], "ptxas 12.8")]
    assert [sass_checks.wrong_descriptors(ptx, machine_code(ptx, version)) for ptx, version in made] == [[]] * 4


@pytest.mark.slow
def test_a_planted_fault_is_found(kernels: list[str]) -> None:
    """In the default: a number, a register or an instruction that a descriptor is made from."""
    ptx = kernels[-1]
    text = sass.disassemble(machine_code(ptx, "ptxas 12.8"))
    assert sass_checks.differences(ptx, text) == []
    faults = [
        # The upper word of a descriptor, the offset of another one, and where the shared memory begins.
        (r"(UMOV UR\d+, )0x40000040", r"\g<1>0x40000080"), (r"(UIADD3\.64 UR\d+, UR\d+, )0x2,", r"\g<1>0x6,"),
        (r"(UMOV UR\d+, )0x400 ", r"\g<1>0x800 "),
        # Another register, and one that nothing writes.
        (r"gdesc\[UR8\]", "gdesc[UR10]"), (r"gdesc\[UR\d+\]", "gdesc[UR58]"),
        # An instruction that is missing.
        (r"UIADD3\.64 UR\d+, .* ;", "NOP ;"),
    ]  # fmt: skip
    for pattern, fault in faults:
        spoiled = re.sub(pattern, fault, text, count=1)
        assert spoiled != text, pattern
        assert sass_checks.differences(ptx, spoiled), pattern
    # Two descriptors that are both right, one for the other's product.
    first, second = re.findall(r"gdesc\[UR\d+\]", text)[:2]
    swapped = re.sub(
        rf"{re.escape(first)}(.*?){re.escape(second)}", rf"{second}\1{first}", text, count=1, flags=re.DOTALL
    )
    assert sass_checks.differences(ptx, swapped)
    # A descriptor from memory is not known to be right or wrong.
    loaded = re.sub(r"UMOV (UR\d+), 0x400 ", r"ULDC \1, c[0x0][0x210] ", text, count=1)
    with pytest.raises(NotComputable, match="products of the machine code"):
        sass_checks.differences(ptx, loaded)
    with pytest.raises(NotComputable, match="has no product"):
        sass_checks.differences(ptx, text.replace("HGMMA", "NEWGMM"))


def test_without_products_there_is_nothing_to_compare() -> None:
    assert sass_checks.wrong_descriptors(".visible .entry kernel()", b"") == []


def test_a_missing_disassembler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sass, "disassembler", lambda: None)
    with pytest.raises(NotComputable, match="nvdisasm, which comes with Triton, is not there"):
        sass_checks.wrong_descriptors("wgmma.mma_async", b"")


def test_what_is_no_machine_code_is_told() -> None:
    if toolchains.disassembler() is None:
        pytest.skip("nvdisasm is not there")
    with pytest.raises(NotComputable, match="nvdisasm cannot read"):
        sass_checks.wrong_descriptors("wgmma.mma_async", b"no cubin")


@pytest.mark.parametrize(("code", "expected"), [
    ("UMOV UR4, 0x5", 5), ("UIADD3 UR4, UP0, -0x1, 0x2, URZ;UIADD3.X UR4, URZ, 0x1, URZ, UP0, !UPT", 2),
    ("S2R R1, SR_TID.X;VIADD R1, R1, -0x2;R2UR UR4, R1", 30), ("ULEA UR4, 0x1, 0x400, 0x18", 0x1000400),
    ("ULEA.HI UR4, 0x80000000, 0x1, URZ, 0x1", 2), ("USHF.R.S32.HI UR4, URZ, 0x1f, -0x1", 0xFFFFFFFF),
    ("USHF.L.U32 UR4, 0x3, 0x4, URZ", 0x30), ("USGXT.U32 UR4, 0xff, 0x4", 15), ("USGXT UR4, 0xf, 0x4", 0xFFFFFFFF),
    ("ULOP3.LUT UR4, 0x6, 0x3, URZ, 0xc0, !UPT", 2), ("IMAD R1, 0x3, 0x4, 0x5;R2UR UR4, R1", 17),
    ("UISETP.GE.AND UP0, UPT, -0x1, URZ, UPT;USEL UR4, 0x1, 0x2, UP0", 2),
    ("UISETP.GE.U32.AND UP0, UPT, -0x1, URZ, UPT;USEL UR4, 0x1, 0x2, UP0", 1),
    ("CS2R R0, SRZ;SHFL.IDX PT, R2, R1, RZ, 0x1f;R2UR UR4, R2", 0), ("UIADD3 UR4, UR5, 0x1, URZ", "never written"),
    ("LDG.E R1, desc[UR8][R2.64];R2UR UR4, R1", "unknown"), ("UMOV UR4, 0x1;@UP0 UMOV UR4, 0x2", "unknown"),
    ("UMOV UR4, 0x1;@!UPT UMOV UR4, 0x2", 1), ("UMOV UR4, 0x1;STS [R4], R5;LDS.64 R4, [UR4]", 1),
])  # fmt: skip
def test_instructions_compute_what_they_say(code: str, expected: int | str) -> None:
    """The lower word of a descriptor; thread 32."""
    lines = [*code.split(";"), "UMOV UR5, URZ", "HGMMA.64x8x16.F32 R24, R4, gdesc[UR2], RZ, !UPT"]
    text = "\n".join(f"  /*{16 * i:04x}*/  {line} ;" for i, line in enumerate(lines))
    (product,) = sass_machine.products(sass.parse(text), warp=1)
    assert product.descriptors == (expected,)
