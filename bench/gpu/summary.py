"""What a run of ``make gpu-check`` showed: from its rows to a summary, to text, and to records.

``python -m lsms_rt.bench.gpu.summary rows.jsonl -o FOLDER`` writes the records, which ``lsms-rt bench compare`` and
``report`` read.  Later files win where two have a row of the same name.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lsms_rt.bench import records

from .collect import OUTCOME
from .plan import KERNELS
from .process import NOT_RUN, RIGHT, WRONG, Row
from .row_file import read_rows

# Kind of the first row: provenance, options and the plan.
RUN = "run"
WHAT = {
    records.KERNELS_VERIFIED: "kernels and block against float64; CUDA graph against a run without",
    records.PLUGINS_VERIFIED: "the plugins' PTX, launched by the driver, against float64 and against Triton's launch",
    records.RUNTIME_VERIFIED: "driver calls, CUDA graphs and engines of TensorRT",
    records.CEILINGS: "copy and matrix product of this GPU, the gap between kernels, and the ceilings of the floors",
    records.KERNELS_TIMED: "kernels, CUDA graph, inputs in the L2 cache where they fit",
    records.PARTS_TIMED: "depthwise part and block beside PyTorch, inputs in the L2 cache where they fit",
    records.MODELS_TIMED: "image graph, sentence already encoded",
    records.SHARES: "time of the kernels in one run of the image graph, by the profiler",
    records.SANITIZED: "kernels under compute-sanitizer at small shapes",
}
Verdict = bool | None
# Kernel, None for the block and the runner as a whole; element type; assembler, None for Triton's own.
Subject = tuple[str | None, str, str | None]


def _subject(row: Row) -> Subject:
    # Models have no shape; they are timed in fp16.
    dtype = row.get("dtype") or str(row.get("shape", "fp16")).rpartition("_")[2]
    return row.get("kernel"), dtype, row.get("ptxas")


def verdicts(rows: Iterable[Row]) -> dict[Subject, bool]:
    """Return whether the verification of each subject was right; what was not verified is not in it."""
    found: dict[Subject, bool] = {}
    for row in rows:
        if row["kind"] == records.KERNELS_VERIFIED:
            right = row["ok"]
        # A unit that died has verified nothing, whatever rows it left.
        elif row["kind"] == OUTCOME and row["state"] == WRONG and (row["section"] == "verify" or _runs_kernel(row)):
            right = False
        else:
            continue
        found[_subject(row)] = found.get(_subject(row), True) and right
    return found


def _runs_kernel(ended: Row) -> bool:
    """Return whether a unit ran a kernel as PyTorch runs it, at full size."""
    return ended["kernel"] is not None and ended["section"] in ("kernels", "ptxas", "rest")


def verified(row: Row, known: dict[Subject, bool]) -> Verdict:
    """Return whether what a row timed was verified: True, False for a failure, None if nothing was verified."""
    if "kernel" in row:
        return known.get(_subject(row))
    parts = [known.get((kernel, _subject(row)[1], None)) for kernel in (*KERNELS, None)]
    return False if False in parts else None if None in parts else True


def records_of(rows: Sequence[Row]) -> dict[str, records.Record]:
    """Return kind -> record, with rows of one name put together, and marked by what verification found."""
    known = verdicts(rows)
    header: Row = next((row for row in rows if row["kind"] == RUN), {})
    provenance: Row = {name: header[name] for name in ("device", "versions", "commit", "date") if name in header}
    found: dict[str, dict[tuple[Any, ...], Row]] = {}
    for row in rows:
        kind = row["kind"]
        if kind not in WHAT:
            continue
        name = tuple(str(row.get(field)) for field in records.KINDS[kind])
        plain = {field: value for field, value in row.items() if field not in ("kind", "section", "unit")}
        merged = found.setdefault(kind, {}).setdefault(name, {})
        merged |= plain
    for kind in (records.KERNELS_TIMED, records.PARTS_TIMED, records.MODELS_TIMED):
        for row in found.get(kind, {}).values():
            row |= {"verified": verified(row, known)} | compared(row)
    return {
        kind: {"kind": kind, "format": records.FORMAT, **provenance, "what": WHAT[kind], "rows": list(of_kind.values())}
        for kind, of_kind in found.items()
    }


def compared(row: Row) -> Row:
    """Return the fastest rival, how many times faster ours is, and how many times the floor ours takes."""
    times = {name: float(value["p50"]) for name, value in row.items() if isinstance(value, dict) and "p50" in value}
    rivals = [name for name in times if not name.startswith("ours")]
    found: Row = {}
    if "ours" in times and rivals:
        rival = min(rivals, key=lambda name: times[name])
        found |= {"rival": rival, "speedup_over_rival": round(times[rival] / times["ours"], 2)}
    if "ours" in times and "floor_ms" in row:
        found["times_floor"] = round(times["ours"] / row["floor_ms"], 2)
    return found


def write_records(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``folder/KIND.json`` for every kind of row, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, record in records_of(rows).items():
        written.append(folder / f"{kind}.json")
        records.write(written[-1], record)
    return written


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the states of all sections, everything that is wrong, and the models' median times."""
    outcomes = [row for row in rows if row["kind"] == OUTCOME]
    sections: dict[str, Counter[str]] = {}
    for ended in outcomes:
        sections.setdefault(ended["section"], Counter())[ended["state"]] += 1
    reasons = Counter((ended["section"], ended["reason"]) for ended in outcomes if ended["state"] == NOT_RUN)
    models = records_of(rows).get(records.MODELS_TIMED, {"rows": []})["rows"]
    return {
        "run": next((row for row in rows if row["kind"] == RUN), {}),
        "sections": {section: dict(states) for section, states in sections.items()},
        "wrong": [
            {name: ended[name] for name in ("section", "unit", "reason", "trace")}
            for ended in outcomes
            if ended["state"] == WRONG
        ],
        "wrong_rows": [row for row in rows if row.get("ok") is False],
        "not_run": [
            {"section": section, "reason": reason, "units": units} for (section, reason), units in reasons.items()
        ],
        "models_ms": [
            {
                name: value["p50"] if isinstance(value, dict) else value
                for name, value in row.items()
                if not isinstance(value, dict) or "p50" in value
            }
            for row in models
        ],
    }


def text(found: dict[str, Any]) -> str:
    """Return the summary for the terminal."""
    lines = []
    for section, states in found["sections"].items():
        lines.append(f"{section:12} " + ", ".join(f"{n} {state}" for state, n in states.items()))
    lines += [f"wrong: {w['section']}: {w['unit']}: {w['reason']}" for w in found["wrong"]]
    lines += [f"not run: {n['section']}: {n['units']} units: {n['reason']}" for n in found["not_run"]]
    for row in found["models_ms"]:
        ways = {name: value for name, value in row.items() if isinstance(value, float) and name not in NOT_WAYS}
        times = ", ".join(f"{name} {value:.3g} ms" for name, value in ways.items())
        mark = {True: "verified", False: "VERIFICATION FAILED", None: "not verified"}[row["verified"]]
        lines.append(f"{row['preset']}, batch {row['batch']} ({mark}): {times}")
    return "\n".join(lines)


# Numbers in a model's row that are not the time of a way to run it.
NOT_WAYS = ("speedup_over_rival", "times_floor", "floor_ms")


def exit_code(found: dict[str, Any]) -> int:
    """Return 0 if everything that ran was right, 1 if something was wrong, 3 if nothing but the environment ran."""
    if found["wrong"]:
        return 1
    return 0 if any(RIGHT in states for section, states in found["sections"].items() if section != "environment") else 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="rows.jsonl", help="files that make gpu-check wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the records")
    options = parser.parse_args(argv)
    rows = [row for path in options.files for row in read_rows(path)]
    for path in write_records(rows, options.output):
        print(path)
    print(text(summary(rows)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
