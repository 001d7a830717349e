"""NVML: energy, clocks, temperature and throttling of a datacenter or desktop GPU."""

from __future__ import annotations

from typing import Any

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean that the GPU is slower than it could be.
REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class Device:
    """One GPU, by its number in NVML; ``library`` is the module ``pynvml`` or a fake of it."""

    def __init__(self, library: Any, index: int = 0) -> None:
        self.library = library
        library.nvmlInit()
        self.handle = library.nvmlDeviceGetHandleByIndex(index)

    @property
    def no_energy(self) -> str | None:
        """Return why the GPU has no energy counter, or None if it has one (since Volta)."""
        try:
            self.millijoules()
        except self.library.NVMLError as error:
            return f"this GPU has no energy counter ({error})"
        return None

    def millijoules(self) -> int:
        return int(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def state(self) -> dict[str, Any]:
        """Return MHz, degrees Celsius, watts, MB, and bits of ``REASONS``; None for what the GPU does not report."""
        lib, handle = self.library, self.handle

        def query(name: str, *arguments: Any) -> Any:
            try:
                return getattr(lib, name)(handle, *arguments)
            except lib.NVMLError:
                return None

        memory, power = query("nvmlDeviceGetMemoryInfo"), query("nvmlDeviceGetPowerUsage")
        return {
            "sm_mhz": query("nvmlDeviceGetClockInfo", lib.NVML_CLOCK_SM),
            "memory_mhz": query("nvmlDeviceGetClockInfo", lib.NVML_CLOCK_MEM),
            "celsius": query("nvmlDeviceGetTemperature", lib.NVML_TEMPERATURE_GPU),
            "watts": None if power is None else power / 1000,
            "used_mb": None if memory is None else round(memory.used / 1e6, 1),
            "throttle_bits": query("nvmlDeviceGetCurrentClocksThrottleReasons"),
        }


class NvmlMeter:
    """The counter of the driver, which starts when the driver is loaded."""

    source = "NVML total energy counter"

    def __init__(self, device: Device) -> None:
        self._device = device

    def joules(self) -> float:
        return self._device.millijoules() / 1000

    def close(self) -> None:
        """Do nothing, since nothing runs."""


def throttled(states: list[dict[str, Any]]) -> list[str]:
    """Return what slowed the GPU down in any of these states."""
    bits = 0
    for state in states:
        bits |= state.get("throttle_bits") or 0
    return [f"the GPU was throttled: {reason}" for bit, reason in REASONS.items() if bits & bit]
