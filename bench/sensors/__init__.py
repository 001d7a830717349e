"""Sensors of a device: energy, clocks and temperatures, from NVIDIA's NVML or a Jetson's tegrastats."""

from .energy import energy
from .find import Sensors, find_sensors, no_sensors

__all__ = ["Sensors", "energy", "find_sensors", "no_sensors"]
