"""NVML: the energy counter, clocks, temperature and reasons of throttling of a datacenter or desktop GPU.

``library`` is the module ``pynvml`` of the package nvidia-ml-py, or what a test recorded of it.
"""

from __future__ import annotations

from typing import Any

REASONS = {  # bits of nvmlDeviceGetCurrentClocksEventReasons that mean less speed than the GPU could give
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class Device:
    """GPU number ``index`` as NVML counts them."""

    def __init__(self, library: Any, index: int = 0) -> None:
        self.library = library
        library.nvmlInit()
        self.handle = library.nvmlDeviceGetHandleByIndex(index)

    @property
    def no_energy(self) -> str | None:
        """Why there is no energy counter: it came with Volta."""
        try:
            self.millijoules()
        except self.library.NVMLError as error:
            return f"this GPU has no energy counter ({error})"
        return None

    def millijoules(self) -> int:
        return int(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def state(self) -> dict[str, Any]:
        """MHz, degrees Celsius, watts, MB, and the bits of ``REASONS``; None for what the GPU does not tell."""
        lib, handle = self.library, self.handle

        def ask(name: str, *arguments: Any) -> Any:
            try:
                return getattr(lib, name)(handle, *arguments)
            except lib.NVMLError:
                return None

        memory, power = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetPowerUsage")
        return {
            "sm_mhz": ask("nvmlDeviceGetClockInfo", lib.NVML_CLOCK_SM),
            "memory_mhz": ask("nvmlDeviceGetClockInfo", lib.NVML_CLOCK_MEM),
            "celsius": ask("nvmlDeviceGetTemperature", lib.NVML_TEMPERATURE_GPU),
            "watts": None if power is None else power / 1000,
            "used_mb": None if memory is None else round(memory.used / 1e6, 1),
            "throttle_bits": ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
        }


class NvmlMeter:
    """The counter that the driver keeps since it was loaded."""

    source = "NVML total energy counter"

    def __init__(self, device: Device) -> None:
        self._device = device

    def joules(self) -> float:
        return self._device.millijoules() / 1000

    def close(self) -> None:
        """Nothing runs."""


def throttled(states: list[dict[str, Any]]) -> list[str]:
    """What slowed the GPU down at any of these moments."""
    bits = 0
    for state in states:
        bits |= state.get("throttle_bits") or 0
    return [f"the GPU was throttled: {reason}" for bit, reason in REASONS.items() if bits & bit]
