"""Texts of /proc/cpuinfo as Linux writes them: two processors each, with the flags that matter and some others."""

from __future__ import annotations

X86 = "processor\t: {number}\nvendor_id\t: {vendor}\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: spectre_v1"
ARM = "processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {flags}\nCPU implementer\t: 0x41\nCPU part\t: {part}"
_V3 = "fpu sse sse2 avx f16c fma avx2 bmi2"
_V4 = f"{_V3} avx512f avx512dq avx512bw avx512vl"
_ICE_LAKE = f"{_V4} avx512_vbmi2 gfni avx512_vnni avx512_bitalg"


def _x86(vendor: str, name: str, flags: str) -> str:
    processors = (X86.format(number=n, vendor=vendor, name=name, flags=flags) for n in range(2))
    return "\n\n".join(processors) + "\n\n"


def _arm(flags: str, part: str, board: str = "") -> str:
    return "\n\n".join([*(ARM.format(number=n, flags=flags, part=part) for n in range(2)), board])


ZEN5 = _x86("AuthenticAMD", "AMD EPYC 9655 96-Core Processor", f"{_ICE_LAKE} avx_vnni avx512_bf16")
ICE_LAKE = _x86("GenuineIntel", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", _ICE_LAKE)
SAPPHIRE_RAPIDS = _x86(
    "GenuineIntel",
    "Intel(R) Xeon(R) Platinum 8480+",
    f"{_ICE_LAKE} avx_vnni avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8",
)
ALDER_LAKE = _x86("GenuineIntel", "12th Gen Intel(R) Core(TM) i7-1260P", f"{_V3} avx_vnni gfni")
HASWELL = _x86("GenuineIntel", "Intel(R) Core(TM) i5-4590 CPU @ 3.30GHz", _V3)
OLD = _x86("GenuineIntel", "Intel(R) Atom(TM) CPU D525 @ 1.80GHz", "fpu sse sse2 ssse3")
RASPBERRY_PI = _arm(
    "fp asimd evtstrm aes crc32 cpuid asimdrdm",
    "0xd0b",
    "Revision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
)
GRAVITON3 = _arm("fp asimd evtstrm aes asimdhp bf16 sve i8mm svebf16 svei8mm dgh rng", "0xd40")
