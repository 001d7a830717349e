"""Energy of a slice: what a device takes at work, less what it takes anyway."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .options import ENERGY_S
from .sensors import Sensors


def energy(
    run: Callable[[], int], sensors: Sensors, seconds: float = ENERGY_S,
    clock: Callable[[], float] = time.monotonic, rest: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:  # fmt: skip
    """Joules a slice; ``run`` computes some slices and says how many.  First idle for ``seconds``, then at work."""
    if sensors.meter is None:
        return {"absent": sensors.absent}
    meter = sensors.meter()
    try:
        begin, before = clock(), meter.joules()
        rest(seconds)
        idle = (meter.joules() - before) / (clock() - begin)
        slices, begin, before = 0, clock(), meter.joules()
        while clock() - begin < seconds:
            slices += run()
        spent, took = meter.joules() - before, clock() - begin
    finally:
        meter.close()
    if idle <= 0 or spent <= 0:
        return {"absent": f"{meter.source}: no power was told in {took:.0f} s"}
    return {
        "source": meter.source,
        "idle_watts": round(idle, 3),
        "watts": round(spent / took, 3),
        "joules_a_slice": round((spent - idle * took) / slices, 4),
        "joules_a_slice_with_idle": round(spent / slices, 4),
        "seconds": round(took, 2),
        "slices": slices,
    }
