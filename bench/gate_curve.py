"""How often an engine passes the accuracy gate that loses lesions while the rest gains: the gate's operating curve.

Answers are drawn, not predicted: ``python -m lsms_rt.bench.gate_curve -o FILE`` takes a few minutes and needs no
engine.  The rule of version 0.1 is kept here to compare with.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lsms_rt.calibration.options import MAX_DICE_DROP
from lsms_rt.calibration.policy import MIN_CASES, cannot_judge, failures
from lsms_rt.calibration.statistics import Comparison, compare_answers
from lsms_rt.datasets.questions import Answer
from lsms_rt.datasets.refhl import Annotation

from .records import GATE, Record, add_output_options, put, record_of
from .tables import gate_table

# Lesions that the reference finds, of them a case.  The gate's default of 500 sentences of a phantom holds 297.
LESIONS, PER_CASE = (100, 200, 300, 400), 3
LOST = (0, 1, 2, 5, 10, 20)
# Standard deviation of an answer's change of Dice; that of the demo weights in INT8 is 0.07, in fp16 0.0004.
NOISE = 0.05
RUNS = 1000
Rule = Callable[[Comparison], bool]


def passes(comparison: Comparison) -> bool:
    """Return whether the gate lets an INT8 engine pass."""
    return not failures(comparison, MAX_DICE_DROP) and not cannot_judge(comparison, MAX_DICE_DROP)


def passed_before(comparison: Comparison) -> bool:
    """Return whether the gate of version 0.1 did: it judged estimates, and no single lesion."""
    budget, dice, small, empty = 0.005, comparison.dice, comparison.small, comparison.emptiness
    return not (
        (dice is not None and dice.drop > budget)
        or (small is not None and small.drop > 2 * budget)
        or (empty is not None and empty.new_false_positives > math.ceil(budget * empty.reference - 1e-9))
    )


def answers(lesions: int, lost: int, noise: float, rng: np.random.Generator) -> tuple[list[Answer], list[Answer]]:
    """Draw the answers of a reference, and of an engine that loses some of its lesions.

    Args:
        lesions: lesions that the reference finds.
        lost: those for which the engine's mask is empty; the others gain so much that mean Dice stays the same.
        noise: standard deviation of every other answer's change of Dice.
        rng: the random numbers.
    """
    reference = rng.beta(6, 2, lesions)
    engine = np.clip(reference + rng.normal(0, noise, lesions), 0, 1) if noise else reference.copy()
    missed = rng.permutation(lesions)[:lost]
    engine[missed] = 0
    kept = np.ones(lesions, bool)
    kept[missed] = False
    # Dice ends at 1, so the gain is a part of what each answer lacks.
    engine[kept] += (1 - engine[kept]) * min(1.0, reference[missed].sum() / (1 - engine[kept]).sum())
    cases = max(MIN_CASES, lesions // PER_CASE)
    rows = [Annotation(f"{i % cases}", "", Path(), Path(f"{i}"), "", "", "", line=i) for i in range(lesions)]

    def made(values: np.ndarray) -> list[Answer]:
        return [Answer(row, float(d), d > 0, True, 20.0, 1, None) for row, d in zip(rows, values, strict=True)]

    return made(reference), made(engine)


def pass_rate(rule: Rule, lesions: int, lost: int, noise: float, runs: int, seed: int = 0) -> float:
    """Return how often ``rule`` lets such an engine pass, of ``runs``."""
    rng = np.random.default_rng(seed)
    return sum(rule(compare_answers(*answers(lesions, lost, noise, rng))) for _ in range(runs)) / runs


def operating_curve(runs: int = RUNS) -> Record:
    """Return the probability to pass for every number of lesions and of lost ones, before and now."""
    rows = [
        {"lesions": n, "lost": k, "noise": noise}
        | {name: pass_rate(rule, n, k, noise, runs) for name, rule in (("before", passed_before), ("now", passes))}
        for n in LESIONS
        for noise, lost in ((0.0, (0,)), (NOISE, LOST))
        for k in lost
    ]
    return record_of(
        GATE, ("numpy",), what="probability to pass the accuracy gate, by simulation", runs=runs, rows=rows
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="engines per figure (default: %(default)s)")
    add_output_options(parser)
    options = parser.parse_args(argv)
    record = operating_curve(options.runs)
    put(record, gate_table(record), options)


if __name__ == "__main__":
    main()
