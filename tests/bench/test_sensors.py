"""Sensors, with the documented output of boards and drivers; no board or driver is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lsms_rt.bench.sensors import Sensors, energy, find_sensors, nvml, tegrastats

# The formats of an Orin Nano (L4T 36) and of a Nano (L4T 32) as documented by NVIDIA, with made-up figures.
ORIN = (
    "11-25-2026 10:00:00 RAM 2448/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) CPU [4%@1510,0%@1510,off,off] "
    "GR3D_FREQ 61%@[624] cpu@48.5C soc2@47.6C tj@49.1C cv0@-256C VDD_IN 7970mW/4969mW VDD_CPU_GPU_CV 2001mW/514mW "
    "VDD_SOC 1419mW/1420mW"
)
NANO = (
    "RAM 1903/3964MB (lfb 2x2MB) SWAP 0/1982MB (cached 0MB) CPU [12%@921,8%@921] EMC_FREQ 0% GR3D_FREQ 23% "
    "PLL@30C CPU@33.5C PMIC@100C GPU@31C AO@39C thermal@32.25C POM_5V_IN 2532/2100 POM_5V_GPU 41/20 POM_5V_CPU 450/400"
)


def test_tegrastats_of_an_orin() -> None:
    found = tegrastats.parse(ORIN)
    assert found["rails"] == {"VDD_IN": 7970, "VDD_CPU_GPU_CV": 2001, "VDD_SOC": 1419}
    # A sensor that is off reports -256.
    assert found["celsius"] == {"cpu": 48.5, "soc2": 47.6, "tj": 49.1}
    assert (found["ram_mb"], found["gpu_percent"], found["gpu_mhz"]) == (2448, 61, 624)
    assert tegrastats.whole_watts(found) == 7.97


def test_tegrastats_of_a_nano() -> None:
    found = tegrastats.parse(NANO)
    assert found["rails"] == {"POM_5V_IN": 2532, "POM_5V_GPU": 41, "POM_5V_CPU": 450}
    assert tegrastats.whole_watts(found) == 2.532 and found["gpu_mhz"] is None


@pytest.mark.parametrize("line", ["", "nonsense", "RAM 1/2MB"])
def test_a_line_without_rails_has_no_power(line: str) -> None:
    assert tegrastats.whole_watts(tegrastats.parse(line)) is None


def test_power_adds_up_over_time() -> None:
    total = tegrastats.Integral()
    assert total.joules(5.0) == 0
    total.add(10.0, 4.0)
    total.add(12.0, 6.0)
    assert total.joules(13.0) == pytest.approx(2 * 4 + 1 * 6)


def test_a_hot_board_and_a_changed_mode_are_warned_about() -> None:
    before = {"power_mode": "15W", "celsius": {"tj": 60.0}}
    warnings = tegrastats.throttled([before, {"power_mode": "7W", "celsius": {"tj": 97.0}}, before])
    assert "15W, then 7W" in warnings[0] and "tj is at 97 degrees Celsius" in warnings[1]
    assert not tegrastats.throttled([before, before])


class NVMLError(Exception):
    """A fake of pynvml's error."""


class Library:
    """A fake of ``pynvml`` whose counter rises by 2500 mJ per query."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVMLError = 1, 2, 0, NVMLError

    def __init__(self, counter: bool = True) -> None:
        self.counter, self.energy = counter, 1_000_000

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, _: int) -> int:
        if not self.counter:
            raise NVMLError("Not Supported")
        self.energy += 2500
        return self.energy

    def nvmlDeviceGetClockInfo(self, _: int, kind: int) -> int:
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetTemperature(self, _: int, kind: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:
        return 118_500

    def nvmlDeviceGetMemoryInfo(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(used=2_500_000_000)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: int) -> int:
        raise NVMLError("Not Supported")


def test_nvml_state_holds_what_the_gpu_reports() -> None:
    state = nvml.Device(Library()).state()
    assert state == {
        "sm_mhz": 1980, "memory_mhz": 2619, "celsius": 41, "watts": 118.5, "used_mb": 2500.0, "throttle_bits": None,
    }  # fmt: skip
    assert nvml.throttled([{"throttle_bits": 0x20}, {"throttle_bits": 0x4 | 0x1}, {}]) == [
        "the GPU was throttled: software power cap",
        "the GPU was throttled: software thermal slowdown",
    ]
    assert not nvml.throttled([state, state])
    assert "no energy counter" in str(nvml.Device(Library(counter=False)).no_energy)
    assert nvml.NvmlMeter(nvml.Device(Library())).joules() == 1002.5


def test_a_gpu_without_a_counter_has_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(counter=False))
    monkeypatch.setattr("lsms_rt.bench.sensors.find.query_driver", lambda: SimpleNamespace(problem=None))
    sensors = find_sensors()
    assert sensors.meter is None and sensors.state()["sm_mhz"] == 1980
    assert "no energy counter" in energy(lambda: 1, sensors)["absent"]


class Meter:
    """A fake meter with its own clock: 10 W idle and 30 W at work."""

    source = "a test"

    def __init__(self) -> None:
        self.now, self.total, self.closed = 0.0, 0.0, False

    def joules(self) -> float:
        return self.total

    def close(self) -> None:
        self.closed = True

    def idle(self, seconds: float) -> None:
        self.now, self.total = self.now + seconds, self.total + 10 * seconds

    def work(self) -> int:
        self.now, self.total = self.now + 0.5, self.total + 15
        return 4


def test_energy_is_above_idle() -> None:
    meter = Meter()
    sensors = Sensors(lambda: meter, dict, lambda states: [])
    found = energy(meter.work, sensors, 10.0, lambda: meter.now, meter.idle)
    assert found["idle_watts"] == 10 and found["watts"] == 30 and found["slices"] == 80
    assert found["joules_a_slice"] == pytest.approx(20 * 10 / 80) and meter.closed
    assert found["joules_a_slice_with_idle"] == pytest.approx(30 * 10 / 80)


def test_absent_sensors_are_reported() -> None:
    sensors = find_sensors()
    if sensors.meter is None:
        assert sensors.absent and energy(lambda: 1, sensors) == {"absent": sensors.absent}
        assert sensors.state() == {"absent": sensors.absent}


def test_states_are_read_while_a_device_works() -> None:
    read: list[int] = []

    def state() -> dict[str, int]:
        read.append(1)
        return {"throttle_bits": 0x8}

    with Sensors(None, state, nvml.throttled, every=0.001).watched() as states:
        while len(read) < 3:
            pass
    assert len(states) >= 3 and nvml.throttled(states) == ["the GPU was throttled: hardware slowdown"]
    with find_sensors().watched() as states:
        pass
    assert states == [] or find_sensors().absent is None


def test_the_power_of_an_agx_orin_is_the_sum_of_its_rails() -> None:
    line = "RAM 3000/30000MB tj@50C VDD_GPU_SOC 4000mW/4000mW VDD_CPU_CV 1500mW/1500mW VIN_SYS_5V0 3500mW/3500mW"
    assert tegrastats.whole_watts(tegrastats.parse(line)) == 9.0
    assert tegrastats.whole_watts(tegrastats.parse("tj@50C VIN_SYS_5V0 3500mW/3500mW")) is None


def test_a_meter_without_readings_is_absent() -> None:
    meter = Meter()
    meter.idle = meter.work = lambda *_: 1  # type: ignore[method-assign]
    ticks = iter(range(100))
    found = energy(lambda: 1, Sensors(lambda: meter, dict, lambda states: []), 3.0, lambda: next(ticks), lambda _: None)
    assert "no power reading for" in found["absent"]
