"""One contender in a process of its own: ``python -m lsms_rt.bench.peers.worker FOLDER NAME THREADS``.

So it shares no threads, memory or caches with the others, and sleeps while they are measured.  It prints one line of
JSON when it is ready, and one after each line on its standard input, which names the form to run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from lsms_rt.bench.memory import peak_rss_mb
from lsms_rt.bench.timing import cost, seconds

from .contenders import CONTENDERS

INPUTS, LOGITS = "inputs.npz", "logits-{}.npy"


def main() -> None:
    begin = time.perf_counter()
    folder, name, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # A pipe of its own for answers, because libraries print to standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender = next(contender for contender in CONTENDERS if contender.name == name)
    with np.load(folder / INPUTS) as file:
        images, tokens, mask = file["images"], file["tokens"], file["mask"]
    forms = contender.open(folder, threads)
    opened = time.perf_counter() - begin
    # As a user gets the first mask: one slice.
    first = seconds(lambda: forms[contender.forms[-1]](images[:1], tokens, mask))
    for form in contender.forms:
        # In every launch, so that all are warmed up equally.
        logits = forms[form](images, tokens, mask)
        file = folder / LOGITS.format(contender.row(form))
        if not file.exists():
            np.save(file, logits)
    ready = {"open_s": round(opened, 3), "first_slice_s": round(first, 3), "peak_rss_mb": peak_rss_mb()}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        run = forms[line.strip()]
        took = cost(lambda run=run: run(images, tokens, mask))  # type: ignore[misc]
        print(json.dumps(took._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
