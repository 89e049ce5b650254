"""How sure was the teacher? By the log-probabilities of its tokens, and by how often it passes."""

from __future__ import annotations

import math
from collections import Counter

from pipeline.records import Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep


def logprob(min_mean: float = -1.5) -> Filter:
    """Keep answers whose tokens' mean natural-log probability is at least `min_mean`.

    -1.5 is a geometric mean probability of 0.22 a token. The score is the mean. Needs
    `sampling: {logprobs: 0}` and a teacher of grade B1; what its reasoning cost is in it where the
    backend counts reasoning among the tokens.
    """
    if not min_mean <= 0:
        raise ValueError(f"min_mean is a natural logarithm, at most 0; seen {min_mean!r}")

    def check(row: Candidate) -> Verdict:
        tokens = row.generation.logprobs
        if not tokens:
            return drop("logprob", "the answer came without log-probabilities")
        mean = sum(token.logprob for token in tokens) / len(tokens)
        if math.isnan(mean):
            return drop("logprob", "its log-probabilities are no numbers")
        score = round(mean, 4) if math.isfinite(mean) else None
        if mean < min_mean:
            return drop("logprob", f"mean below {min_mean:g}", score)
        return keep("logprob", score)

    return check


class PassRate:
    """Keep the answers to seeds that are neither too easy nor too hard for the teacher.

    A seed's pass rate is the share of its answers that the filters named before this one keep; rows
    that the endpoint refused are not counted. It is the score, and stays with the row as
    `pass_rate`. `band` is what is kept, both ends included. Memory: some 150 bytes a seed.
    """

    def __init__(self, band: tuple[float, float] = (0.2, 0.9)) -> None:
        self._low, self._high = band
        if not 0 <= self._low <= self._high <= 1:
            raise ValueError(f"band is [low, high] with 0 <= low <= high <= 1; seen {list(band)}")
        self._asked: Counter[tuple[str, str]] = Counter()
        self._passed: Counter[tuple[str, str]] = Counter()

    def saw(self, row: Candidate) -> None:
        self._asked[_seed(row)] += row.generation.finish is not Finish.ERROR

    def gather(self, row: Candidate) -> None:
        self._passed[_seed(row)] += 1

    def __call__(self, row: Candidate) -> Verdict:
        rate = round(self._passed[_seed(row)] / max(1, self._asked[_seed(row)]), 4)
        if rate > self._high:
            return drop("pass_rate", f"too easy: above {self._high:g}", rate)
        if rate < self._low:
            return drop("pass_rate", f"too hard: below {self._low:g}", rate)
        return keep("pass_rate", rate)


def _seed(row: Candidate) -> tuple[str, str]:
    return row.seed.task, row.seed.id
