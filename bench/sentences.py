"""Several sentences of one slice or series, asked at once and one by one: ``python -m lsms_rt.bench.sentences``.

At once the image is read, decoded and preprocessed once; the image graph computes it once per sentence either way,
since language enters every block of the network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lsms_rt.data import demo_engine
from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.segmenter import Segmenter

from .records import SENTENCES, Record, add_output_options, put, record_of
from .tables import rows_table
from .timing import rounds, seconds

COUNTS = (1, 2, 4, 8)
TEXTS = (
    "the cyst in the left lobe of the liver",
    "the cyst in the right lobe of the liver",
    "the hemangioma in the left lobe of the liver",
    "the hemangioma in the right lobe of the liver",
    "the low-density lesion in the left lobe of the liver",
    "the low-density lesion in the right lobe of the liver",
    "the largest lesion in the liver",
    "the smallest lesion in the liver",
)
SEED, SLICES, MATRIX = 189, 12, 512


def measure(engine: Path, count: int, threads: int | None = None) -> Record:
    """Measure one file and a series of DICOM slices, 512 x 512, with 1, 2, 4 and 8 sentences.

    Args:
        engine: the engine.
        count: rounds; every way runs once in each.
        threads: CPU threads; None for one per core.

    Returns:
        A record whose rows have ms per answer (a slice and a sentence), and the ratio of both ways.
    """
    with tempfile.TemporaryDirectory(prefix="lsms-sentences-") as name:
        folder = Path(name)
        case = generate_case(SEED, SLICES, MATRIX)
        for index in range(len(case.slices)):
            write_slice(folder / f"{index:03d}.dcm", case, index, "case")
        file = folder / "000.dcm"
        with Segmenter(engine, threads=threads) as segmenter:
            for text in TEXTS:
                segmenter.prepare_sentence(text)
            slices = {"one file": 1, "a series": len(case.slices)}
            ask = {"one file": partial(_file, segmenter, file), "a series": partial(_series, segmenter, folder)}
            runs: dict[Any, Callable[[], float]] = {}
            for what, way in ask.items():
                for n in COUNTS:
                    texts = TEXTS[:n]
                    runs[what, n, True] = partial(seconds, partial(way, [texts]))
                    runs[what, n, False] = partial(seconds, partial(way, texts))
            found = rounds(runs, count)
            backend, version = segmenter.manifest.backend, segmenter.backend_version
    rows = []
    for what in ask:
        for n in COUNTS:
            answers = n * slices[what]
            at_once, one_by_one = (median(found[what, n, way]) * 1000 / answers for way in (True, False))
            rows.append({"input": what, "sentences": n, "at once, ms": at_once, "one by one, ms": one_by_one,
                         "ratio": one_by_one / at_once})  # fmt: skip
    return record_of(
        SENTENCES,
        (backend,),
        what=f"ms per answer (slice and sentence) of {backend} {version}, DICOM slices of {MATRIX}x{MATRIX}, "
        f"a series of {slices['a series']}; medians of {count} interleaved rounds, sentences encoded before",
        rows=rows,
    )


def _file(segmenter: Segmenter, file: Path, asked: Sequence[Any]) -> None:
    for text in asked:
        segmenter.predict(file, text)


def _series(segmenter: Segmenter, folder: Path, asked: Sequence[Any]) -> None:
    for text in asked:
        deque(segmenter.predict_series(folder, text), maxlen=0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--engine", type=Path, default=demo_engine(), help="engine directory (default: the bundled one)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: one per core)")
    add_output_options(parser)
    options = parser.parse_args(argv)
    record = measure(options.engine, options.rounds, options.threads)
    put(record, rows_table(record), options)


if __name__ == "__main__":
    main()
