"""How long one slice takes on this CPU: ``python -m lsms_rt.bench.latency ENGINE --json FILE``.

A first measure, of ``predict`` end to end; the sentence cached and not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.bench.provenance import provenance
from lsms_rt.data import demo_engine
from lsms_rt.segmenter import Segmenter

WARM_UP, RUNS = 5, 40
TEXT = "the low-density lesion in the right lobe of the liver"


def percentiles(run: Callable[[], object], runs: int = RUNS) -> dict[str, float]:
    """Milliseconds of ``runs`` calls after a warm-up: p50, p90 and the least."""
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1000)
    p50, p90 = np.percentile(times, (50, 90))
    return {"p50": round(float(p50), 2), "p90": round(float(p90), 2), "min": round(min(times), 2), "runs": runs}


def measure(engine: Path, threads: int | None) -> dict[str, Any]:
    """Times of a 512x512 slice of noise through ``engine``."""
    image = np.random.default_rng(0).normal(40, 30, (512, 512)).astype(np.float32)
    image[0, 0] = -1000
    with Segmenter(engine, threads=threads) as segmenter:
        cached = percentiles(lambda: segmenter.predict(image, TEXT))
        # A sentence that was not asked before; numbers keep every one different.
        fresh = iter(range(10**6))
        uncached = percentiles(lambda: segmenter.predict(image, f"{TEXT} {next(fresh)}"))
        stages = segmenter.predict(image, TEXT).timings
        manifest = segmenter.manifest
    code = "import time; t = time.perf_counter(); import lsms_rt; print(time.perf_counter() - t)"
    imports = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    record = {
        "what": "predict of one 512x512 slice, end to end, milliseconds",
        "engine": {"preset": manifest.preset, "image_size": manifest.image_size, "precision": manifest.precision},
        "sentence_cached": cached,
        "sentence_not_cached": uncached,
        "stages_of_one_call_ms": {name: round(value, 2) for name, value in stages.items()},
        "import_lsms_rt_ms": round(min(imports) * 1000, 1),
        "threads": threads,
    }
    return record | provenance(manifest.backend)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("engine", nargs="?", type=Path, default=demo_engine(), help="engine directory")
    parser.add_argument("--threads", type=int, help="CPU threads (default: one a core)")
    parser.add_argument("--json", type=Path, help="file to write (default: print only)")
    options = parser.parse_args(argv)
    text = json.dumps(measure(options.engine, options.threads), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
