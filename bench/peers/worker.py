"""One contender in a process of its own: ``python -m lsms_rt.bench.peers.worker FOLDER NAME THREADS``.

Its threads, memory and caches are then nobody else's, and it sleeps while others are measured.  It says one line of
JSON when it is ready, and one after each line on its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from lsms_rt.bench.memory import peak_rss_mb

from .contenders import CONTENDERS

INPUTS, LOGITS = "inputs.npz", "logits-{}.npy"


def main() -> None:
    begin = time.perf_counter()
    folder, name, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")  # libraries print; what they say must not be taken for an answer
    os.dup2(2, 1)
    contender = next(contender for contender in CONTENDERS if contender.name == name)
    with np.load(folder / INPUTS) as file:
        images, tokens, mask = file["images"], file["tokens"], file["mask"]
    series = contender.open(folder, threads)
    opened = time.perf_counter() - begin
    begin = time.perf_counter()
    series(images[:1], tokens, mask)
    first = time.perf_counter() - begin
    logits = series(images, tokens, mask)  # in every launch: all of them are warmed up alike
    if not (folder / LOGITS.format(name)).exists():
        np.save(folder / LOGITS.format(name), logits)
    ready = {"open_s": round(opened, 3), "first_slice_s": round(first, 3), "peak_rss_mb": peak_rss_mb()}
    print(json.dumps(ready), file=answers, flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        series(images, tokens, mask)
        print(json.dumps({"seconds": time.perf_counter() - begin}), file=answers, flush=True)


if __name__ == "__main__":
    main()
