"""Which answers a judge keeps, how far it agrees with the truth; the best of several answers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from statistics import mean
from typing import Literal

import msgspec

from pipeline.records import (
    Decision,
    Example,
    Finish,
    Generation,
    PromptRef,
    Request,
    Sampling,
    Seed,
    Verdict,
)
from pipeline.stage1_generate.curate import Candidate, drop, keep
from pipeline.stage1_generate.curate.correctness import answer, constraints

_SCORE = re.compile(r"score\W{0,6}(\d{1,2}(?:\.\d+)?)(?:\s*/\s*10)?(?![\d/])", re.IGNORECASE)
_BETTER = re.compile(r"better\W{0,6}(?:answer\s+)?(a|b|tie|equal|both|neither)\b", re.IGNORECASE)


class Better(StrEnum):
    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


_WORDS = {"a": Better.FIRST, "b": Better.SECOND}
_POINTS = {Better.FIRST: 1.0, Better.TIE: 0.5, Better.SECOND: 0.0}


def read_score(text: str) -> float | None:
    """The last "Score: n" of a judge's answer, 1 to 10; None where there is none."""
    found = [float(number) for number in _SCORE.findall(text)]
    return found[-1] if found and 1 <= found[-1] <= 10 else None


def read_better(text: str) -> Better | None:
    """The last "Better: A" of a judge's answer; None where there is none."""
    found = _BETTER.findall(text)
    return _WORDS.get(found[-1].lower(), Better.TIE) if found else None


class Agreement(msgspec.Struct):
    """How a judge's word and the known truth go together; part of 2_funnel.json.

    `agree`: with scores, the share of rows where "at least `at_least`" (or, without that, above the
    middle) is the truth; comparing, the share of pairs of a right and a wrong answer where the
    right one is preferred (a tie counts half). `auc` is free of the threshold.
    `same_in_both_orders` is the share of pairs with one verdict in either order.
    """

    judged: int = 0
    unreadable: int = 0
    known: int = 0  # rows (or pairs, in both orders) whose truth is known
    agree: float | None = None
    auc: float | None = None
    same_in_both_orders: float | None = None


class Judge:
    """Keep what the judging task `by` scored at least `at_least`, or the `best` of each seed.

    A score is from 1 to 10, the mean over the judge's samples; of comparisons it is the share of
    those won, from 0 to 1.
    """

    def __init__(self, by: str, at_least: float | None = None, best: int | None = None) -> None:
        if at_least is None and best is None:
            raise ValueError("give at_least (a score) or best (how many of each seed)")
        self.by = by
        self._at_least, self._best = at_least, best
        self._scores: dict[str, float] = {}
        self._rank: dict[str, int] = {}
        self.agreement = Agreement()

    def load(self, answers: Iterable[tuple[Seed, Generation]]) -> None:
        """Read the judge's answers."""
        found: dict[str, list[float]] = defaultdict(list)
        seeds: dict[str, str] = {}
        truth: dict[str, bool] = {}
        pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
        for seed, generation in answers:
            self.agreement.judged += 1
            request = str(seed.fields["source_request"])
            seeds[request] = str(seed.fields["source_seed"])
            if (right := _truth(seed, str(seed.fields["response"]))) is not None:
                truth[request] = right
            if "second_request" not in seed.fields:
                score = read_score(generation.text)
                if score is not None:
                    found[request].append(score)
            else:
                better = read_better(generation.text)
                score = None if better is None else _POINTS[better]
                if score is not None:
                    other = str(seed.fields["second_request"])
                    pairs[request, other].append(score)
                    found[request].append(score)
                    found[other].append(1 - score)
            self.agreement.unreadable += score is None
        self._scores = {request: mean(scores) for request, scores in found.items()}
        by_seed: dict[str, list[str]] = defaultdict(list)
        for request in sorted(self._scores, key=lambda r: -self._scores[r]):
            by_seed[seeds[request]].append(request)
        self._rank = {r: place for group in by_seed.values() for place, r in enumerate(group)}
        self._agree(truth, pairs)

    def _agree(self, truth: dict[str, bool], pairs: dict[tuple[str, str], list[float]]) -> None:
        found = self.agreement
        if pairs:
            means = {pair: mean(scores) for pair, scores in pairs.items()}
            both = [(s, means[b, a]) for (a, b), s in means.items() if a < b and (b, a) in means]
            if both:
                found.same_in_both_orders = mean(float(s == 1 - back) for s, back in both)
            told = [s for (a, b), s in means.items() if truth.get(a) and truth.get(b) is False]
            told += [1 - s for (a, b), s in means.items() if truth.get(a) is False and truth.get(b)]
            found.known = len(told)
            found.agree = mean(told) if told else None
            return
        known = [request for request in self._scores if request in truth]
        found.known = len(known)
        if not known:
            return
        line = 5.5 if self._at_least is None else self._at_least
        found.agree = mean(float((self._scores[r] >= line) == truth[r]) for r in known)
        if len({truth[r] for r in known}) == 2:
            from sklearn.metrics import roc_auc_score

            found.auc = float(
                roc_auc_score([truth[r] for r in known], [self._scores[r] for r in known])
            )

    def __call__(self, row: Candidate) -> Verdict:
        score = self._scores.get(row.request.id)
        if score is None:
            return drop("judge", f"no readable score by {self.by}")
        if self._at_least is not None and score < self._at_least:
            return drop("judge", f"scored below {self._at_least:g}", round(score, 3))
        if self._best is not None and self._rank[row.request.id] >= self._best:
            return drop("judge", f"not among the best {self._best} of its seed", round(score, 3))
        return keep("judge", round(score, 3))


_NUMBER_OR_LABEL, _FOLLOWED = answer(), constraints()


def _truth(seed: Seed, text: str) -> bool | None:
    """Is an answer to the seed right? None where nobody knows."""
    if seed.reference is None and not seed.constraints:
        return None
    check = _NUMBER_OR_LABEL if seed.reference is not None else _FOLLOWED
    request = Request("", seed.id, "", PromptRef("", ""), (), Sampling(), 0, "")
    row = Candidate(seed, request, Generation("", text, Finish.STOP), Example((), (), 1.0, ()))
    return check(row).decision is Decision.KEEP


class BestOf:
    """Keep the best `n` of each seed's answers that passed the filters before.

    `by`: `first` (in the order of the samples and teachers), `shortest` or `longest` (characters),
    `logprob` (mean log-probability of the answer's tokens).
    """

    def __init__(
        self, n: int = 1, by: Literal["first", "shortest", "longest", "logprob"] = "first"
    ) -> None:
        if n < 1:
            raise ValueError("n is a whole number from 1")
        if by not in ("first", "shortest", "longest", "logprob"):
            raise ValueError(f"by is first, shortest, longest or logprob; seen {by!r}")
        self._n, self._by = n, by
        self._groups: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)

    def gather(self, row: Candidate) -> None:
        group = self._groups[row.seed.task, row.seed.id]
        group.append((self._badness(row, len(group)), row.request.id))

    def _badness(self, row: Candidate, place: int) -> float:
        if self._by == "first":
            return place
        if self._by == "logprob":
            logprobs = row.generation.logprobs
            return -mean(token.logprob for token in logprobs) if logprobs else float("inf")
        size = len(row.generation.text)
        return size if self._by == "shortest" else -size

    def __call__(self, row: Candidate) -> Verdict:
        group = sorted(self._groups[row.seed.task, row.seed.id])[: self._n]
        badness = next((b for b, request in group if request == row.request.id), None)
        if badness is None:
            return drop("best_of", f"not among the best {self._n} of its seed by {self._by}")
        return keep("best_of")
