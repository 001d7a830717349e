"""Whether a Triton server really answers: a bundled slice is segmented by every instance of a model.

Triton's own readiness does not see that a stub process died; this does: the dead instance takes a request and fails.
The requests have priority 1, so they are next when an instance is free.  An answer tells which instance gave it, and
more are asked for until every instance has answered.  For probes of Kubernetes and the like:

    python3 -m lsms_rt.triton_server.probe NAME --url http://127.0.0.1:8000 --timeout 10 --allow-busy

Exit code 0: every instance answered; or, with ``--allow-busy``, none failed.  1: it does not work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lsms_rt.data import PROBE_IMAGE, PROBE_TEXT
from lsms_rt.kserve_request import bytes_tensor, request_of

from .config import FIRST, INSTANCE

# seconds after the probe has left at which Triton takes its request out of the queue
LATER = 1.0
# seconds between two rounds of requests: at first, and at most
SHORT, LONG = 0.1, 3.0
ANSWERED, BUSY = "answered", "busy"


def probe(url: str, model: str, timeout: float, instances: int | None = None) -> list[str]:
    """Ask until each instance of a model has answered, one has failed, or time is over.

    Args:
        url: of the server, "http://HOST:PORT".
        model: its name.
        timeout: seconds for all of it.
        instances: how many there are; None: the server is asked.

    Returns:
        What came of each instance: "answered"; "busy", no answer in time; or what failed.
    """
    # Not through a proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    base = f"{url}/v2/models/{model}"
    end = time.monotonic() + timeout
    try:
        if instances is None:
            with opener.open(f"{base}/config", timeout=timeout) as answer:
                instances = _instances(json.load(answer))
    except (OSError, ValueError) as error:
        return [f"no configuration: {_what(error)}"]

    def ask(left: float) -> str | int:
        body, headers = _request(left)
        try:
            with opener.open(urllib.request.Request(f"{base}/infer", body, headers), timeout=left) as answer:
                (output,) = json.load(answer)["outputs"]
                return int(output["data"][0])
        except (OSError, ValueError, LookupError) as error:
            return _what(error)

    answered: set[int] = set()
    pause = SHORT
    with ThreadPoolExecutor(instances) as pool:
        while len(answered) < instances and (left := end - time.monotonic()) > 0:
            found = list(pool.map(ask, [left] * instances))
            answered |= {one for one in found if isinstance(one, int)}
            failed = [one for one in found if isinstance(one, str) and one != BUSY]
            if failed:
                return [ANSWERED] * len(answered) + failed
            if len(answered) < instances:
                # The instances that answer have time for others.
                time.sleep(max(0.0, min(pause, end - time.monotonic())))
                pause = min(2 * pause, LONG)
    return [ANSWERED] * len(answered) + [BUSY] * (instances - len(answered))


def _instances(config: dict[str, Any]) -> int:
    return sum(one.get("count", 1) * max(1, len(one.get("gpus", []))) for one in config["instance_group"])


def _what(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        # The queue's own limit was shorter than the probe's.
        late = error.code == 503 and b"timeout" in error.read()
        return BUSY if late else f"status {error.code}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return BUSY
    return "no connection" if isinstance(error, OSError) else "no answer of Triton"


def _request(timeout: float) -> tuple[bytes, dict[str, str]]:
    inputs = [bytes_tensor("TEXT", [PROBE_TEXT.encode()]), bytes_tensor("DICOM", [PROBE_IMAGE.read_bytes()])]
    parameters = {"priority": FIRST, "timeout": int((timeout + LATER) * 1e6)}
    return request_of(inputs, parameters=parameters, outputs=[{"name": INSTANCE}])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the probe as a program; return its exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m lsms_rt.triton_server.probe", description=__doc__)
    parser.add_argument("model", help="name of the model")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds (default: %(default)s)")
    parser.add_argument("--instances", type=int, help="number of instances (default: the server is asked)")
    parser.add_argument("--allow-busy", action="store_true", help="an instance that computes something else is well")
    given = parser.parse_args(argv)
    found = probe(given.url, given.model, given.timeout, given.instances)
    print(", ".join(found))
    return 0 if set(found) <= {ANSWERED, *([BUSY] if given.allow_busy else [])} else 1


if __name__ == "__main__":
    sys.exit(main())
