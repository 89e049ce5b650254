"""How often the report's 95 % intervals hold the truth, by simulation.

    python bench/coverage.py                 # 2,000 runs of each kind, about 5 minutes of one core
    python bench/coverage.py --runs 200 --kinds share difference

Each kind of interval of pipeline/stage3_evaluate/statistics.py is computed, as the report does, for
evaluations drawn from a known truth. Printed: the share of runs whose interval holds it, with its
own Wilson interval, and how often the truth lies below and above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np

from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.held_out_text import TextRow, text_scores
from pipeline.stage3_evaluate.statistics import Interval

Drawn = tuple[float, Interval]  # the truth, and the interval of one simulated evaluation


def share(rng: Any, seed: int) -> Drawn:
    """64 problems, each right with 30 %: Wilson."""
    right = (rng.random(64) < 0.3).astype(float)
    return 0.3, statistics.mean_interval([right.tolist()], seed)


def two_tasks(rng: Any, seed: int) -> Drawn:
    """The mean of two tasks of 48 and 40 items."""
    strata = [(rng.random(48) < 0.45).astype(float), (rng.random(40) < 0.85).astype(float)]
    return 0.65, statistics.mean_interval([s.tolist() for s in strata], seed)


def draws(rng: Any, seed: int) -> Drawn:
    """60 items of unequal difficulty with five draws of shots each: clustered by item."""
    difficulty = rng.beta(1.5, 1.5, size=60)
    means = rng.binomial(5, difficulty) / 5
    return 0.5, statistics.mean_interval([means.tolist()], seed)


def difference(rng: Any, seed: int) -> Drawn:
    """64 paired items: 35 % gained, 5 % lost."""
    drawn = rng.choice([1.0, 0.0, -1.0], p=[0.35, 0.6, 0.05], size=64)
    return 0.3, statistics.difference_interval([drawn.tolist()], seed)


def small_difference(rng: Any, seed: int) -> Drawn:
    """48 paired items: 15 % gained, 10 % lost."""
    drawn = rng.choice([1.0, 0.0, -1.0], p=[0.15, 0.75, 0.1], size=48)
    return 0.05, statistics.difference_interval([drawn.tolist()], seed)


def tokens_per_correct(rng: Any, seed: int) -> Drawn:
    """100 problems, 40 % right, 20 to 120 tokens each."""
    right = (rng.random(100) < 0.4).astype(float)
    spent = rng.uniform(20, 120, size=100)
    return 70 / 0.4, statistics.ratio_interval(list(zip(spent, right, strict=True)), seed)


def gap_recovered(rng: Any, seed: int) -> Drawn:
    """150 items that three arms answer: before 20 %, after 50 %, teacher 80 %."""
    level = rng.random(150)  # one difficulty for all arms, so that they go together
    arms = [((level + rng.normal(0, 0.05, 150)) < p).astype(float) for p in (0.2, 0.5, 0.8)]
    found = statistics.gap_recovered(*([arm.tolist()] for arm in arms), seed)
    if found.low is None or found.high is None:
        return 0.5, Interval(float("nan"), float("nan"))
    return 0.5, Interval(found.low, found.high)


def perplexity(rng: Any, seed: int) -> Drawn:
    """24 documents of 60 to 180 tokens, 3 % more perplexity after."""
    tokens = rng.integers(60, 180, size=24)
    before = [TextRow(str(i), 4 * int(n), int(n), 3.0 * n) for i, n in enumerate(tokens)]
    rise = np.log(1.03) + rng.normal(0, 0.05, size=24)
    after = [
        TextRow(row.id, row.bytes, row.tokens, row.nats + row.tokens * more)
        for row, more in zip(before, rise, strict=True)
    ]
    (_, found) = text_scores(
        {"before": before, "after": after}, ["before", "after"], seed=seed, margin=0.05
    )
    assert found.low is not None and found.high is not None
    return 1.03, Interval(found.low, found.high)


KINDS: dict[str, Callable[[Any, int], Drawn]] = {
    kind.__name__: kind
    for kind in (
        share, two_tasks, draws, difference, small_difference, tokens_per_correct,
        gap_recovered, perplexity,
    )
}  # fmt: skip


def covered(kind: str, runs: int) -> tuple[int, int, int]:
    """(runs whose interval holds the truth, whose interval is too low, too high)."""
    rng = np.random.default_rng(20260)
    inside = low = high = 0
    for run in range(runs):
        truth, interval = KINDS[kind](rng, run)
        inside += interval.low <= truth <= interval.high
        low += interval.high < truth
        high += interval.low > truth
    return inside, low, high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    harness.table(["interval", "of", "covers", "[95 %]", "too low", "too high", "seconds"])
    for kind in options.kinds:
        begin = time.monotonic()
        inside, low, high = covered(kind, options.runs)
        least, most = statistics.proportion_interval(inside, options.runs)
        harness.line(
            [
                kind,
                (KINDS[kind].__doc__ or "").rstrip("."),
                f"{100 * inside / options.runs:.1f} %",
                f"{100 * least:.1f} to {100 * most:.1f}",
                f"{100 * low / options.runs:.1f} %",
                f"{100 * high / options.runs:.1f} %",
                f"{time.monotonic() - begin:.0f}",
            ]
        )


if __name__ == "__main__":
    main()
