"""Energy per slice: power at work minus idle power."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lsms_rt.bench.options import ENERGY_S

from .find import Sensors


def energy(
    run: Callable[[], int],
    sensors: Sensors,
    seconds: float = ENERGY_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Measure joules per slice: idle for ``seconds``, then at work for as long.

    Args:
        run: Computes some slices and returns their number.
        sensors: The sensors of the device.
        seconds: Duration of each of the two phases.
        clock: Returns seconds; replaced in tests.
        sleep: Waits for some seconds; replaced in tests.

    Returns:
        The figures in plain types, or ``{"absent": reason}``.
    """
    if sensors.meter is None:
        return {"absent": sensors.absent}
    meter = sensors.meter()
    try:
        begin, before = clock(), meter.joules()
        sleep(seconds)
        idle = (meter.joules() - before) / (clock() - begin)
        slices, begin, before = 0, clock(), meter.joules()
        while clock() - begin < seconds:
            slices += run()
        spent, took = meter.joules() - before, clock() - begin
    finally:
        meter.close()
    if idle <= 0 or spent <= 0:
        return {"absent": f"{meter.source}: no power reading for {took:.0f} s"}
    return {
        "source": meter.source,
        "idle_watts": round(idle, 3),
        "watts": round(spent / took, 3),
        "joules_a_slice": round((spent - idle * took) / slices, 4),
        "joules_a_slice_with_idle": round(spent / slices, 4),
        "seconds": round(took, 2),
        "slices": slices,
    }
