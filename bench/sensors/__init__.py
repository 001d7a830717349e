"""Energy, clocks and temperatures: of NVIDIA's NVML, and of a Jetson's tegrastats."""

from .find import Sensors, find_sensors, no_sensors

__all__ = ["Sensors", "find_sensors", "no_sensors"]
