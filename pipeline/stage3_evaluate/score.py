"""Saved answers -> scores and verdicts; a pure function, so scoring again needs no model.

Primary metrics, declared here before any run:

* in-context learning: mean over tasks of the accuracy at the largest k;
* chain of thought: accuracy step by step;
* instruction following: all constraints hold (strict), on constraint types training never saw;
  beside it, in the same Holm family, on the types it did see.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.metrics import (
    Items,
    ability_scores,
    paired_strata,
    primary_items,
    valid_items,
)
from pipeline.stage3_evaluate.statistics import Gap, GapRecovered

ALPHA = 0.05
FORM_SHARE = 0.1  # fewer of the gained items than this were answered readably before


class Finding(StrEnum):
    """What a comparison of after with before comes to."""

    DISTILLED = "distilled"
    FORM = "form only"  # better, on items that before had not answered readably
    HARMED = "harmed"
    INCONCLUSIVE = "inconclusive"


class Role(StrEnum):
    PRIMARY = "primary"
    SECONDARY = "secondary"


class Comparison(msgspec.Struct, frozen=True):
    """after - before on one metric, paired by item; shares of 1, not per cent."""

    ability: str
    metric: str
    role: Role
    before: float
    after: float
    teacher: float | None
    difference: float
    low: float
    high: float
    p: float  # exact, two-sided
    p_adjusted: float  # Holm, over all comparisons of the run
    n: int  # items that both arms answered
    gained: int  # items on which after is better
    gained_readable: int  # of these, items on which before had answered readably, only wrongly
    lost: int
    gap: GapRecovered
    smallest_detectable: float | None  # with power 0.8 at this n and share of differing items
    valid_difference: float | None  # on the `valid_n` items both arms answered readably
    valid_n: int
    verdict: Finding
    reason: str


class Scores(msgspec.Struct, frozen=True):
    """Everything in 6_scores.json."""

    arms: list[str]
    scores: list[Score]
    comparisons: list[Comparison]
    notes: list[str]
    extractor: str = EXTRACTOR_VERSION
    confidence: float = 0.95


def score(answers: dict[str, list[Answer]], *, arms: Sequence[str], seed: int = 0) -> Scores:
    """Score every arm's answers and compare `after` with `before`.

    `answers` maps an arm to its rows; `arms` gives the order of the report, and an arm of it
    without answers is noted, not an error. The same answers and seed give the same bytes.
    """
    notes = [f"The arm {arm} has no answers." for arm in arms if not answers.get(arm)]
    present = [arm for arm in arms if answers.get(arm)]
    present += [arm for arm in sorted(answers) if arm not in arms and answers[arm]]
    scores: list[Score] = []
    for ability in _abilities(answers):
        for arm in present:
            rows = [answer for answer in answers[arm] if answer.ability == ability]
            if rows:
                found, said = ability_scores(arm, ability, rows, seed)
                scores += found
                notes += said
            else:
                notes.append(f"The arm {arm} was not asked about {ability}.")
    comparisons, said = _compare(answers, seed)
    return Scores(present, scores, _adjusted(comparisons), notes + said)


def _abilities(answers: dict[str, list[Answer]]) -> list[str]:
    known = ["in_context", "chain_of_thought", "instruction_following"]
    found = {answer.ability for rows in answers.values() for answer in rows}
    return [ability for ability in known if ability in found] + sorted(found - set(known))


def _compare(answers: dict[str, list[Answer]], seed: int) -> tuple[list[Comparison], list[str]]:
    before, after = answers.get("before", []), answers.get("after", [])
    if not before or not after:
        return [], ["No comparison: it needs the arms before and after."]
    comparisons: list[Comparison] = []
    notes: list[str] = []
    for ability in _abilities({"before": before, "after": after}):
        old, new = primary_items(ability, before), primary_items(ability, after)
        best = primary_items(ability, answers.get("teacher", []))
        readable = valid_items(ability, before), valid_items(ability, after)
        for number, metric in enumerate(old):
            if metric not in new:
                notes.append(f"{ability}, {metric}: not compared, after was not asked.")
                continue
            unpaired = len(old[metric].keys() ^ new[metric].keys())
            if unpaired:
                notes.append(f"{ability}, {metric}: {unpaired} items have only one arm's answer.")
            if not old[metric].keys() & new[metric].keys():
                continue
            role = Role.SECONDARY if number else Role.PRIMARY
            arms = old[metric], new[metric], best.get(metric, {})
            valid = readable[0].get(metric, set()), readable[1].get(metric, set())
            comparisons.append(_comparison(ability, metric, role, arms, valid, seed))
    return comparisons, notes


def _comparison(
    ability: str,
    metric: str,
    role: Role,
    arms: tuple[Items, Items, Items],
    valid: tuple[set[tuple[str, str]], set[tuple[str, str]]],
    seed: int,
) -> Comparison:
    """One metric; `valid` holds the items that before, and after, answered readably."""
    old_items, new_items, teacher_items = arms
    old, new = paired_strata(old_items, new_items)
    differences = [
        [y - x for x, y in zip(a, b, strict=True)] for a, b in zip(old, new, strict=True)
    ]
    n = sum(len(stratum) for stratum in old)
    low, high = statistics.difference_interval(differences, seed)
    tested = statistics.paired_test(old, new, seed)
    both = {key: new_items[key] - old_items[key] for key in sorted(valid[0] & valid[1])}
    better = {key for key in old_items.keys() & new_items.keys() if new_items[key] > old_items[key]}
    return Comparison(
        ability=ability,
        metric=metric,
        role=role,
        before=statistics.mean_of(old),
        after=statistics.mean_of(new),
        teacher=statistics.mean_of(paired_strata(teacher_items)[0]) if teacher_items else None,
        difference=statistics.mean_of(differences),
        low=low,
        high=high,
        p=tested.p,
        p_adjusted=tested.p,
        n=n,
        gained=tested.gained,
        gained_readable=len(better & valid[0]),
        lost=tested.lost,
        gap=_gap(arms, seed),
        smallest_detectable=statistics.smallest_detectable(n, (tested.gained + tested.lost) / n),
        valid_difference=statistics.mean_of(paired_strata(both)[0]) if both else None,
        valid_n=len(both),
        verdict=Finding.INCONCLUSIVE,
        reason="",
    )


def _gap(arms: tuple[Items, Items, Items], seed: int) -> GapRecovered:
    before, after, teacher = paired_strata(*arms)
    if not teacher:
        return GapRecovered(Gap.NO_TEACHER)
    return statistics.gap_recovered(before, after, teacher, seed)


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    """The verdicts, once Holm's adjustment over the whole family is known."""
    adjusted = statistics.holm([comparison.p for comparison in comparisons])
    found: list[Comparison] = []
    for comparison, p in zip(comparisons, adjusted, strict=True):
        moved = msgspec.structs.replace(comparison, p_adjusted=p)
        verdict, reason = _verdict(moved)
        found.append(msgspec.structs.replace(moved, verdict=verdict, reason=reason))
    return found


def _verdict(found: Comparison) -> tuple[Finding, str]:
    if found.p_adjusted < ALPHA and found.low > 0:
        # A student that only learned to answer in the form that is read must not look wiser.
        unread = found.gained - found.gained_readable
        form = f" ({unread} of them cut off or unreadable before)" if unread else ""
        only = found.gained_readable < FORM_SHARE * found.gained
        return (
            Finding.FORM if only else Finding.DISTILLED,
            f"better on {found.gained} items{form}, worse on {found.lost}",
        )
    if found.p_adjusted < ALPHA and found.high < 0:
        return Finding.HARMED, f"worse on {found.lost} items, better on {found.gained}"
    if max(found.before, found.after) <= 0.02:
        return Finding.INCONCLUSIVE, "both near zero: the items are too hard to show a difference"
    if min(found.before, found.after) >= 0.98:
        return Finding.INCONCLUSIVE, "both near 100%: the items are too easy to show a difference"
    if found.smallest_detectable is None:
        return Finding.INCONCLUSIVE, f"{found.n} items are too few to show any difference"
    points = 100 * found.smallest_detectable
    return (
        Finding.INCONCLUSIVE,
        f"no clear difference; {found.n} items can show one of about {points:.0f} points",
    )
