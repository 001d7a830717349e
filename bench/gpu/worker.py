"""One unit of ``make gpu-check`` in a process of its own: ``python -m lsms_rt.bench.gpu.worker MODULE``.

The process imports the module, reads one line of JSON from standard input (function, arguments, seconds that it has),
and writes one line of JSON per message to standard output: ``{"row": {...}}`` for every row that the function yields,
then one of ``{"end": true}``, ``{"not_run": "the reason"}`` and ``{"trace": "the traceback"}``.  ``process.py`` is the
other side.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import math
import os
import sys
import traceback
from typing import Any

from lsms_rt.errors import GpuNotFoundError, MissingDependencyError

# Share of a unit's time after which its stacks are printed, so that a unit that hangs leaves a trace.
LATE = 0.9


class NotRunError(Exception):
    """A unit cannot run on this machine; the message is the reason."""


def main() -> int:
    # Libraries print to standard output, too: what they print goes to standard error.
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()

    def say(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message, allow_nan=False) + "\n")
        messages.flush()

    # transformers imports scikit-learn, and with it SciPy, for what nothing here uses: ten seconds on a new machine.
    sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    try:
        module = importlib.import_module(sys.argv[1])
        order = json.loads(sys.stdin.readline())
        faulthandler.dump_traceback_later(LATE * order["seconds"])
        for row in getattr(module, order["function"])(**order["arguments"]):
            say({"row": finite(row)})
        faulthandler.cancel_dump_traceback_later()
    except (NotRunError, GpuNotFoundError, MissingDependencyError) as error:
        say({"not_run": str(error)})
        return 0
    except Exception:
        say({"trace": traceback.format_exc()})
        return 1
    say({"end": True})
    return 0


def finite(value: Any) -> Any:
    """Return plain types with the words "nan", "inf" and "-inf" for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    # ``-m`` makes this file another module than the one that units import NotRunError from.
    from lsms_rt.bench.gpu import worker

    sys.exit(worker.main())
