"""lm-eval's results as our scores, with our intervals, which come from its samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.records import Score, read_jsonl
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.metric_items import score_of
from pipeline.stage3_evaluate.statistics import Interval

ABILITY = "lm-eval"
SCORES = "scores.jsonl"  # in 5_suite
SAME = 1e-9
_Z = 1.96  # of a normal 95 % interval


def suite_scores(arm: str, results: dict[str, Any], seed: int) -> list[Score]:
    """A score for each task, metric and filter of one arm, "TASK/METRIC/FILTER".

    The value is lm-eval's. The interval is from the values of its samples where their mean (or,
    of lists, the mean of all their entries) is that value; else from the standard error that
    lm-eval gives; a number with neither is left to results.json.
    """
    found = []
    for task, rows in results.get("samples", {}).items():
        numbers = results["results"].get(task, {})
        for name, value in numbers.items():
            metric, comma, filtered = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            some = [row for row in rows if row["filter"] == filtered and metric in row]
            interval = _interval([row[metric] for row in some], float(value), seed)
            if interval is None:
                error = numbers.get(f"{metric}_stderr,{filtered}")
                if not isinstance(error, int | float):
                    continue
                interval = Interval(value - _Z * error, value + _Z * error)
            shown = f"{task}/{metric}" + ("" if filtered == "none" else f"/{filtered}")
            found.append(score_of(arm, ABILITY, shown, float(value), len(some), interval))
    return found


def saved_suite(run: Path) -> list[Score]:
    """The scores of a run's suite; none where it has none."""
    path = run / "5_suite" / SCORES
    return list(read_jsonl(path, Score)) if path.is_file() else []


def print_table(found: Sequence[Score], arms: Sequence[str]) -> None:
    """A line for each metric, a column for each arm."""
    values = {(one.metric, one.model): one.value for one in found}
    metrics = list(dict.fromkeys(one.metric for one in found))
    width = max((len(metric) for metric in metrics), default=0)
    print(" " * width + "".join(f"  {arm:>12}" for arm in arms))
    for metric in metrics:
        cells = [values.get((metric, arm)) for arm in arms]
        shown = "".join(f"  {'-' if v is None else f'{v:.3f}':>12}" for v in cells)
        print(f"{metric:<{width}}{shown}")


def _interval(values: Sequence[Any], value: float, seed: int) -> Interval | None:
    if values and all(isinstance(one, int | float) for one in values):
        numbers = [float(one) for one in values]
        if abs(sum(numbers) / len(numbers) - value) > SAME:
            return None
        return statistics.mean_interval([numbers], seed)
    if not values or not all(isinstance(one, list) and one for one in values):
        return None
    pairs = [(float(sum(one)), float(len(one))) for one in values]
    held, asked = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    if abs(held / asked - value) > SAME:
        return None
    return statistics.clustered_share(pairs, seed)
