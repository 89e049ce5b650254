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

from pipeline.config_evaluate import CONTROL
from pipeline.records import Answer, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.metric_items import Items, paired_strata
from pipeline.stage3_evaluate.metrics import ability_scores, primary_items, valid_items
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


class Against(msgspec.Struct, frozen=True):
    """after - a control on one metric, paired by item; the p is exact, two-sided, unadjusted."""

    arm: str
    control: float
    difference: float
    low: float
    high: float
    p: float
    n: int


class Noise(msgspec.Struct, frozen=True):
    """The student before, asked a second time: what differs between two equal arms."""

    ability: str
    metric: str
    difference: float  # second - first
    low: float
    high: float
    differing: int  # items on which the two are not equally right
    n: int


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
    controls: list[Against] = []


class Scores(msgspec.Struct, frozen=True):
    """Everything in 6_scores.json."""

    arms: list[str]
    scores: list[Score]
    comparisons: list[Comparison]
    notes: list[str]
    noise: list[Noise] = []
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
    noise = _noise(answers, seed)
    notes += [*said, *(_noise_note(one) for one in noise)]
    return Scores(present, scores, _adjusted(comparisons), notes, noise)


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
            found = _comparison(ability, metric, role, arms, valid, seed)
            beside = _against_controls(answers, ability, metric, new[metric], seed)
            comparisons.append(msgspec.structs.replace(found, controls=beside))
    return comparisons, notes


def _against_controls(
    answers: dict[str, list[Answer]], ability: str, metric: str, after: Items, seed: int
) -> list[Against]:
    found = []
    for arm in sorted(name for name in answers if name.startswith(CONTROL)):
        control = primary_items(ability, answers[arm]).get(metric, {})
        if shared := control.keys() & after.keys():
            before, now = paired_strata(control, after)
            gaps = _differences(before, now)
            low, high = statistics.difference_interval(gaps, seed)
            p = statistics.paired_test(before, now, seed).p
            mean, gap = statistics.mean_of(before), statistics.mean_of(gaps)
            found.append(Against(arm, mean, gap, low, high, p, len(shared)))
    return found


def _noise(answers: dict[str, list[Answer]], seed: int) -> list[Noise]:
    first, second = answers.get("before", []), answers.get("before_again", [])
    found = []
    for ability in _abilities({"first": first, "second": second}):
        old, new = primary_items(ability, first), primary_items(ability, second)
        for metric in (name for name in old if old[name].keys() & new.get(name, {}).keys()):
            gaps = _differences(*paired_strata(old[metric], new[metric]))
            low, high = statistics.difference_interval(gaps, seed)
            flat = [gap for stratum in gaps for gap in stratum]
            differing = sum(gap != 0 for gap in flat)
            mean = statistics.mean_of(gaps)
            found.append(Noise(ability, metric, mean, low, high, differing, len(flat)))
    return found


def _noise_note(found: Noise) -> str:
    return (
        f"Noise: asked a second time, the student before differs on {found.differing} of {found.n} "
        f"items of {found.ability}, {found.metric} ({100 * found.difference:+.1f} points)."
    )


def _differences(before: statistics.Strata, after: statistics.Strata) -> list[list[float]]:
    return [[y - x for x, y in zip(a, b, strict=True)] for a, b in zip(before, after, strict=True)]


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
    differences = _differences(old, new)
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


def _no_better_than_control(controls: list[Against]) -> str:
    worst = min(controls, key=lambda control: control.low)
    name = worst.arm.removeprefix(CONTROL).replace("_", " ")
    return (
        f"better than before, but not clearly better than the control {name} "
        f"({100 * worst.difference:+.0f} points, {100 * worst.low:+.0f} to {100 * worst.high:+.0f})"
    )


def _gap(arms: tuple[Items, Items, Items], seed: int) -> GapRecovered:
    before, after, teacher = paired_strata(*arms)
    if not teacher:
        return GapRecovered(Gap.NO_TEACHER)
    return statistics.gap_recovered(before, after, teacher, seed)


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    """The verdicts, once Holm's adjustment over the whole family is known.

    "Distilled" claims that after beats before and every control. Its p is the largest of theirs
    (an intersection-union test, Berger 1982), and these are adjusted as a family of their own.
    """
    adjusted = statistics.holm([comparison.p for comparison in comparisons])
    claims = [max([c.p, *(against.p for against in c.controls)]) for c in comparisons]
    found: list[Comparison] = []
    for comparison, p, claim in zip(comparisons, adjusted, statistics.holm(claims), strict=True):
        moved = msgspec.structs.replace(comparison, p_adjusted=p)
        verdict, reason = _verdict(moved, claim)
        found.append(msgspec.structs.replace(moved, verdict=verdict, reason=reason))
    return found


def _verdict(found: Comparison, p_claim: float) -> tuple[Finding, str]:
    if found.p_adjusted < ALPHA and found.low > 0:
        if found.controls and (p_claim >= ALPHA or min(c.low for c in found.controls) <= 0):
            return Finding.INCONCLUSIVE, _no_better_than_control(found.controls)
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
