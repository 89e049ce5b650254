"""Saved answers -> scores and verdicts; a pure function, so scoring again needs no model.

Primary metrics, declared here before any run:

* in-context learning: mean over tasks of the accuracy at the largest k, with the labels as they
  are, each item's draws of shots averaged;
* chain of thought: accuracy step by step;
* instruction following: all constraints hold (strict), on constraint types training never saw;
  beside it, in the same Holm family, on the types it did see.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.config_evaluate import BEYOND_TASK, CONTROL, SEED, TRAINED
from pipeline.records import Answer, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.held_out_text import TextScore
from pipeline.stage3_evaluate.metric_items import Items, paired_strata
from pipeline.stage3_evaluate.metrics import (
    ability_scores,
    beyond_items,
    primary_items,
    valid_items,
)
from pipeline.stage3_evaluate.metrics_chain_of_thought import GainChange, gain_changes
from pipeline.stage3_evaluate.metrics_in_context import Spread, spreads
from pipeline.stage3_evaluate.statistics import Gap, GapRecovered
from pipeline.stage3_evaluate.verdicts import (
    Against,
    Change,
    Comparison,
    Finding,
    Role,
    Seeds,
    decided,
)

READABLE = "on the items that both answered readably"
BEYOND = "beyond what was trained"
TOGETHER = "with all training seeds together"


class Noise(msgspec.Struct, frozen=True):
    """The student before, asked a second time: what differs between two equal arms."""

    ability: str
    metric: str
    difference: float  # second - first
    low: float
    high: float
    differing: int  # items on which the two are not equally right
    n: int


class Scores(msgspec.Struct, frozen=True):
    """Everything in 6_scores.json."""

    arms: list[str]
    scores: list[Score]
    comparisons: list[Comparison]
    notes: list[str]
    noise: list[Noise] = []
    changes: list[Change] = []  # of every student that this run trained
    text: list[TextScore] = []
    spread: list[Spread] = []  # over draws of shots, in-context learning
    reasoning: list[GainChange] = []  # of the gain from reasoning, chain of thought
    extractor: str = EXTRACTOR_VERSION
    confidence: float = 0.95


def score(
    answers: dict[str, list[Answer]],
    *,
    arms: Sequence[str],
    seed: int = 0,
    margin: float = 0.05,
    than: str = "before",
) -> Scores:
    """Score every arm's answers and compare `after` with `before`.

    `answers` maps an arm to its rows; `arms` gives the order of the report, and an arm of it
    without answers is noted, not an error. `margin`: a smaller loss counts as nothing lost.
    `than`: what the reasons call the arm before. The same answers and seed give the same bytes.
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
    comparisons, said = _compare(answers, arms, seed, margin)
    noise = _noise(answers, seed)
    notes += [*said, *(_noise_note(one) for one in noise)]
    changes = _changes(answers, arms, seed, margin)
    spread = spreads({arm: answers[arm] for arm in present})
    reasoning = gain_changes(answers, seed)
    verdicts = decided(comparisons, than)
    return Scores(
        present, scores, verdicts, notes, noise, changes, spread=spread, reasoning=reasoning
    )


def _abilities(answers: dict[str, list[Answer]]) -> list[str]:
    known = ["in_context", "chain_of_thought", "instruction_following"]
    found = {answer.ability for rows in answers.values() for answer in rows}
    return [ability for ability in known if ability in found] + sorted(found - set(known))


def _compare(
    answers: dict[str, list[Answer]], arms: Sequence[str], seed: int, margin: float
) -> tuple[list[Comparison], list[str]]:
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
            three = old[metric], new[metric], best.get(metric, {})
            valid = readable[0].get(metric, set()), readable[1].get(metric, set())
            found = _comparison(ability, metric, role, three, valid, seed, margin)
            comparisons.append(
                msgspec.structs.replace(
                    found,
                    controls=_against_controls(answers, ability, metric, new[metric], seed),
                    unasked=_unasked(answers, arms, ability, metric),
                    seeds=_seeds(answers, ability, metric, old[metric], seed),
                    beyond=[] if number else _beyond(ability, before, after, seed),
                )
            )
    return comparisons, notes


def _against_controls(
    answers: dict[str, list[Answer]], ability: str, metric: str, after: Items, seed: int
) -> list[Against]:
    found = []
    for arm in sorted(name for name in answers if name.startswith(CONTROL)):
        control = primary_items(ability, answers[arm]).get(metric, {})
        if control.keys() & after.keys():
            found.append(against(arm, control, after, seed))
    return found


def _unasked(
    answers: dict[str, list[Answer]], arms: Sequence[str], ability: str, metric: str
) -> list[str]:
    """Controls and seeds of `arms` that the claim of a gain is about, and that say nothing."""
    return [
        arm
        for arm in arms
        if arm.startswith((CONTROL, SEED))
        and not primary_items(ability, answers.get(arm, [])).get(metric)
    ]


def _beyond(
    ability: str, before: Sequence[Answer], after: Sequence[Answer], seed: int
) -> list[Against]:
    """after - before on all sets beyond what was trained together, then on each."""
    old, new = beyond_items(ability, before), beyond_items(ability, after)
    shared = [key for key in old if key in new]
    if not shared:
        return []
    found = [against(BEYOND, old, new, seed)]
    for name in dict.fromkeys(stratum for stratum, _ in shared):
        one = [{key: items[key] for key in shared if key[0] == name} for items in (old, new)]
        found.append(against(name.removesuffix(BEYOND_TASK), one[0], one[1], seed))
    return found


def against(arm: str, first: Items, second: Items, seed: int) -> Against:
    """`second` less `first` on the items that both have, of which there is at least one."""
    old, new = paired_strata(first, second)
    gaps = _differences(old, new)
    low, high = statistics.difference_interval(gaps, seed)
    p = statistics.paired_test(old, new, seed).p
    n = sum(len(stratum) for stratum in old)
    return Against(arm, statistics.mean_of(old), statistics.mean_of(gaps), low, high, p, n)


def _seeds(
    answers: dict[str, list[Answer]], ability: str, metric: str, before: Items, seed: int
) -> Seeds | None:
    """All trainings of the student, less before; None where it was trained once."""
    arms = ["after", *sorted(name for name in answers if name.startswith(SEED))]
    every = {arm: primary_items(ability, answers.get(arm, [])).get(metric, {}) for arm in arms}
    every = {arm: items for arm, items in every.items() if items.keys() & before.keys()}
    if len(every) < 2:
        return None
    shared = set.intersection(*(set(items) for items in [before, *every.values()]))
    if not shared:
        return None
    mean = {key: sum(items[key] for items in every.values()) / len(every) for key in shared}
    differences = [
        statistics.mean_of(_differences(*paired_strata(before, items))) for items in every.values()
    ]
    return Seeds(list(every), differences, against(TOGETHER, before, mean, seed))


def _changes(
    answers: dict[str, list[Answer]], arms: Sequence[str], seed: int, margin: float
) -> list[Change]:
    """Trained on x, measured on y: every trained arm, on every declared metric."""
    before = answers.get("before", [])
    trained = [arm for arm in arms if arm == "after" or arm.startswith(TRAINED)]
    found = []
    for ability in _abilities({"before": before}):
        for metric, old in primary_items(ability, before).items():
            for arm in trained:
                new = primary_items(ability, answers.get(arm, [])).get(metric, {})
                if old.keys() & new.keys():
                    lost = statistics.kept(_differences(*paired_strata(old, new)), margin, seed)
                    found.append(Change(ability, metric, against(arm, old, new, seed), lost))
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
    margin: float,
) -> Comparison:
    """One metric; `valid` holds the items that before, and after, answered readably."""
    old_items, new_items, teacher_items = arms
    old, new = paired_strata(old_items, new_items)
    differences = _differences(old, new)
    n = sum(len(stratum) for stratum in old)
    low, high = statistics.difference_interval(differences, seed)
    tested = statistics.paired_test(old, new, seed)
    both = valid[0] & valid[1] & old_items.keys() & new_items.keys()
    readable = [{key: items[key] for key in both} for items in (old_items, new_items)]
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
        verdict=Finding.INCONCLUSIVE,
        reason="",
        kept=statistics.kept(differences, margin, seed),
        margin=margin,
        valid=against(READABLE, readable[0], readable[1], seed) if 0 < len(both) < n else None,
    )


def _gap(arms: tuple[Items, Items, Items], seed: int) -> GapRecovered:
    before, after, teacher = paired_strata(*arms)
    if not teacher:
        return GapRecovered(Gap.NO_TEACHER)
    return statistics.gap_recovered(before, after, teacher, seed)
