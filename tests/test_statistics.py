"""Intervals and tests agree with published numbers and cover what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.statistics import Gap


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_newcombes_table(right: int, n: int, low: float, high: float) -> None:
    found = statistics.proportion_interval(right, n)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_mcnemar_is_the_exact_binomial_on_discordant_items() -> None:
    # 9 against 1: 2 * (1 + 10) / 1024.
    before, after = [0.0] * 9 + [1.0] + [1.0] * 40, [1.0] * 9 + [0.0] + [1.0] * 40
    assert statistics.paired_test([before], [after], 0) == pytest.approx((22 / 1024, 9, 1))
    assert statistics.paired_test([before], [before], 0) == (1.0, 0, 0)


def test_averaged_draws_are_tested_by_permutation() -> None:
    rng = np.random.default_rng(3)
    before = rng.integers(0, 6, 40) / 5
    up = np.clip(before + rng.choice([0.0, 0.2, 0.4], 40), 0, 1)
    assert statistics.paired_test([before.tolist()], [up.tolist()], 0).p < 0.001
    shuffled = [1 - x for x in before.tolist()]
    assert statistics.paired_test([before.tolist()], [shuffled], 0).p > 0.05


def test_holm_matches_the_worked_example() -> None:
    # Four hypotheses: 0.005*4, 0.01*3, 0.03*2, then never below the one before.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(
    ("n", "discordant", "normal"),
    # Connor 1987's normal approximation, in points; the exact test needs a little more.
    [(250, 0.1, 5.6), (541, 0.2, 5.5), (1319, 0.3, 4.2)],
)
def test_smallest_detectable_is_near_the_normal_approximation(
    n: int, discordant: float, normal: float
) -> None:
    found = statistics.smallest_detectable(n, discordant)
    assert found is not None
    assert normal - 0.1 <= 100 * found <= normal + 0.4


def test_the_smallest_detectable_effect_is_found_as_often_as_it_says() -> None:
    n, discordant = 64, 0.3
    effect = statistics.smallest_detectable(n, discordant)
    assert effect is not None
    rng = np.random.default_rng(0)
    split = [(discordant + effect) / 2, (discordant - effect) / 2, 1 - discordant]
    found = 0
    for gained, lost, _ in rng.multinomial(n, split, size=400):
        before = [0.0] * gained + [1.0] * lost
        found += statistics.paired_test([before], [[1 - x for x in before]], 0).p < 0.05
    assert 0.74 < found / 400 < 0.86


def test_too_few_items_can_show_nothing() -> None:
    assert statistics.smallest_detectable(5, 1.0) is None


def test_gap_recovered_is_unclipped_and_undefined_without_a_lead() -> None:
    before, teacher = [0.0] * 40, [1.0] * 30 + [0.0] * 10
    half = [1.0] * 15 + [0.0] * 25
    found = statistics.gap_recovered([before], [half], [teacher], 0)
    assert found.outcome is Gap.VALUE
    assert found.value == pytest.approx(0.5)
    assert found.low is not None and found.high is not None
    assert 0.25 < found.low < 0.5 < found.high < 0.75
    above = statistics.gap_recovered([before], [[1.0] * 40], [teacher], 0)
    assert above.value == pytest.approx(4 / 3)
    level = [0.0, 1.0] * 20
    same = statistics.gap_recovered([level], [level], [level[::-1]], 0)
    assert (same.outcome, same.value) == (Gap.LEAD_INCLUDES_ZERO, None)
    behind = statistics.gap_recovered([teacher], [half], [before], 0)
    assert behind.outcome is Gap.TEACHER_BEHIND


def test_equal_results_never_give_an_interval_without_width() -> None:
    for strata in ([[1.0] * 20], [[1.0] * 10, [1.0] * 10]):
        assert statistics.mean_interval(strata, 0).low < 0.9
    low, high = statistics.difference_interval([[0.0] * 30], 0)
    assert low < -0.05 < 0.05 < high
    assert statistics.difference_interval([[1.0]], 0) == (-1.0, 1.0)
    assert math.isinf(statistics.ratio_interval([(3.0, 1.0)], 0).high)


def test_unequal_tasks_count_equally() -> None:
    strata = [[1.0] * 90, [0.0] * 10]
    assert statistics.mean_of(strata) == 0.5
    low, high = statistics.mean_interval([[1.0, 0.0] * 45, [0.0, 1.0] * 5], 0)
    # A pooled interval would be 0.40 to 0.60; ten items of one task make it wider.
    assert high - low > 0.25


def test_the_seed_fixes_the_interval() -> None:
    rows = [[0.2, 0.4, 1.0, 0.0, 0.6] * 6]
    assert statistics.mean_interval(rows, 1) == statistics.mean_interval(rows, 1)
    assert statistics.mean_interval(rows, 1) != statistics.mean_interval(rows, 2)


def test_intervals_of_a_difference_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 599)
    rng = np.random.default_rng(11)
    runs, covered = 300, 0
    for run in range(runs):
        drawn = rng.choice([1.0, 0.0, -1.0], p=[0.35, 0.6, 0.05], size=64).tolist()
        low, high = statistics.difference_interval([drawn], run)
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / runs <= 0.98
