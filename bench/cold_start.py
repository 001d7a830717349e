"""Cold start: from the start of a process to its first mask.

Each process runs ``python -m lsms_rt.bench.cold_start ENGINE THREADS DEVICE DIGEST``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .memory import peak_rss_mb, rss_mb

FIELDS = ("import_ms", "engine_load_ms", "first_mask_ms", "process_to_mask_ms", "rss_mb", "peak_rss_mb")


def cold_start(
    engine: Path, threads: int | None, device: str | None, runs: int, digest: str | None = None
) -> dict[str, Any]:
    """Return samples of every field from ``runs`` fresh processes; from the second on, files are in the page cache.

    Raises:
        MachineError: A process failed.
    """
    # Not at the top, because the imports of the child are measured.
    from lsms_rt.errors import MachineError

    from .samples import Samples

    samples: dict[str, list[float]] = {name: [] for name in FIELDS}
    words = [str(engine), str(threads or 0), device or "", digest or ""]
    command = [sys.executable, "-m", "lsms_rt.bench.cold_start", *words]
    for _ in range(runs):
        begin = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = " ".join(done.stderr.splitlines()[-1:])[:300]
            raise MachineError(
                f"a fresh process could not open the engine and predict (exit code {done.returncode}): {last}; "
                f"run lsms-rt doctor"
            )
        record = json.loads(done.stdout.splitlines()[-1])
        record["process_to_mask_ms"] = (record.pop("done") - begin) * 1000
        for name in FIELDS:
            if record[name] is not None:
                samples[name].append(record[name])
    return {
        name: Samples(tuple(values), "MB" if name.endswith("mb") else "ms").to_dict()
        for name, values in samples.items()
        if values
    }


def _child(engine: Path, threads: int, device: str, digest: str) -> dict[str, Any]:
    begin = time.perf_counter()
    import lsms_rt

    # Loads what it needs.
    segmenter_class = lsms_rt.Segmenter
    imported = time.perf_counter()
    # Not timed, since no user waits for it.
    from .example import SENTENCE, example

    loading = time.perf_counter()
    segmenter = segmenter_class(
        engine, digest=digest or None, threads=threads or None, device=device or None, on_unknown="warn"
    )
    loaded = time.perf_counter()
    segmenter.predict(example(), SENTENCE)
    done = time.perf_counter()
    return {
        "import_ms": (imported - begin) * 1000,
        "engine_load_ms": (loaded - loading) * 1000,
        "first_mask_ms": (done - loaded) * 1000,
        "done": time.time(),
        "rss_mb": rss_mb(),
        "peak_rss_mb": peak_rss_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(_child(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5])))
