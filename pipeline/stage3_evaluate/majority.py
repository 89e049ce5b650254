"""Majority vote over m of an item's n samples: the exact chance that it is right.

Self-consistency (2203.11171) takes the answer that most samples give. What one draw of m samples
comes to hangs on luck, so the chance over all draws of m without replacement is computed, which
is the unbiased estimator (a U-statistic, as pass@k in 2107.03374). Several answers with the most
votes share it. A sample without a readable answer has no vote; without any vote there is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def majority_right(right: int, others: Sequence[int], unread: int, m: int) -> float:
    """The chance that the majority of `m` samples is right.

    `right` of the samples give the right answer, `others` holds how many give each of the wrong
    ones, `unread` cannot be read; `m` is from 1 to their sum. Exact, in whole numbers: the draws in
    which j right ones meet t wrong answers of j votes and none of more, over all draws.
    """
    total = comb(right + sum(others) + unread, m)
    won = 0.0
    for j in range(1, min(right, m) + 1):
        # ways[d][t]: draws of d samples that are not right, with t wrong answers of j votes
        ways = [[comb(unread, d)] for d in range(m - j + 1)]
        for size in others:
            ways = _with(ways, size, j)
        ties = ways[m - j]
        won += sum(comb(right, j) * count / (t + 1) for t, count in enumerate(ties)) / total
    return won


def _with(ways: list[list[int]], size: int, most: int) -> list[list[int]]:
    """`ways` after another wrong answer, of which `size` samples exist and at most `most` count."""
    found = [[0] * (len(ways[0]) + 1) for _ in ways]
    for drawn, ties in enumerate(ways):
        for count in range(min(size, most, len(ways) - 1 - drawn) + 1):
            for tied, number in enumerate(ties):
                found[drawn + count][tied + (count == most)] += comb(size, count) * number
    return found


def draws_of(n: int) -> list[int]:
    """The m that are shown for n samples: the odd ones, and n; from 16 on only some of them."""
    odd = [m for m in range(1, n + 1, 2) if n < 16 or m in (1, 3, 5, 9, 17, 33, 65, 129)]
    return odd if n in odd else [*odd, n]
