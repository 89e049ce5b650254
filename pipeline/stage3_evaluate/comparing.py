"""Two arms on the same items: `after` less `before`, and everything a claim about it hangs on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.config_evaluate import BEYOND_TASK, CONTROL, SEED, TRAINED
from pipeline.records import Answer
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.metric_items import Items, paired_strata
from pipeline.stage3_evaluate.metrics import beyond_items, primary_items, valid_items
from pipeline.stage3_evaluate.statistics import Gap, GapRecovered
from pipeline.stage3_evaluate.verdicts import (
    Against,
    Change,
    Comparison,
    Finding,
    Role,
    Seeds,
)

READABLE = "on the items that both answered readably"
BEYOND = "beyond what was trained"
TOGETHER = "with all training seeds together"

# arm -> ability -> metric -> item values
Primary = dict[str, dict[str, dict[str, Items]]]


def primary_of(answers: dict[str, list[Answer]]) -> Primary:
    """Of every arm and ability; once, for much is compared with it."""
    return {
        arm: {ability: primary_items(ability, rows) for ability in abilities({arm: rows})}
        for arm, rows in answers.items()
    }


def abilities(answers: dict[str, list[Answer]]) -> list[str]:
    """Those that were asked about, in the order of the report."""
    known = ["in_context", "chain_of_thought", "instruction_following"]
    found = {answer.ability for rows in answers.values() for answer in rows}
    return [ability for ability in known if ability in found] + sorted(found - set(known))


def compare(
    answers: dict[str, list[Answer]],
    primary: Primary,
    arms: Sequence[str],
    seed: int,
    margin: float,
) -> tuple[list[Comparison], list[str]]:
    """`after` with `before` on every declared metric, undecided yet, and notes on what was not."""
    before, after = answers.get("before", []), answers.get("after", [])
    if not before or not after:
        return [], ["No comparison: it needs the arms before and after."]
    comparisons: list[Comparison] = []
    notes: list[str] = []
    for ability in abilities({"before": before, "after": after}):
        old, new = (primary[arm].get(ability, {}) for arm in ("before", "after"))
        best = primary.get("teacher", {}).get(ability, {})
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
                    controls=_against_controls(primary, ability, metric, seed),
                    unasked=[
                        arm
                        for arm in arms
                        if arm.startswith((CONTROL, SEED))
                        and not _items(primary, arm, ability, metric)
                    ],
                    seeds=_seeds(primary, ability, metric, seed),
                    beyond=[] if number else _beyond(ability, before, after, seed),
                )
            )
    return comparisons, notes


def _items(primary: Primary, arm: str, ability: str, metric: str) -> Items:
    return primary.get(arm, {}).get(ability, {}).get(metric, {})


def _against_controls(primary: Primary, ability: str, metric: str, seed: int) -> list[Against]:
    after = _items(primary, "after", ability, metric)
    found = []
    for arm in sorted(name for name in primary if name.startswith(CONTROL)):
        control = _items(primary, arm, ability, metric)
        if control.keys() & after.keys():
            found.append(against(arm, control, after, seed))
    return found


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
    gaps = differences(old, new)
    low, high = statistics.difference_interval(gaps, seed)
    p = statistics.paired_test(old, new, seed).p
    n = sum(len(stratum) for stratum in old)
    return Against(arm, statistics.mean_of(old), statistics.mean_of(gaps), low, high, p, n)


def _seeds(primary: Primary, ability: str, metric: str, seed: int) -> Seeds | None:
    """All trainings of the student, less before; None where it was trained once."""
    before = _items(primary, "before", ability, metric)
    arms = ["after", *sorted(name for name in primary if name.startswith(SEED))]
    every = {arm: _items(primary, arm, ability, metric) for arm in arms}
    every = {arm: items for arm, items in every.items() if items.keys() & before.keys()}
    if len(every) < 2:
        return None
    shared = set.intersection(*(set(items) for items in [before, *every.values()]))
    if not shared:
        return None
    mean = {key: sum(items[key] for items in every.values()) / len(every) for key in shared}
    by_seed = [
        statistics.mean_of(differences(*paired_strata(before, items))) for items in every.values()
    ]
    return Seeds(list(every), by_seed, against(TOGETHER, before, mean, seed))


def changes_of(primary: Primary, arms: Sequence[str], seed: int, margin: float) -> list[Change]:
    """Trained on x, measured on y: every trained arm, on every declared metric."""
    trained = [arm for arm in arms if arm == "after" or arm.startswith(TRAINED)]
    found = []
    for ability, metrics in primary.get("before", {}).items():
        for metric, old in metrics.items():
            for arm in trained:
                new = _items(primary, arm, ability, metric)
                if old.keys() & new.keys():
                    lost = statistics.kept(differences(*paired_strata(old, new)), margin, seed)
                    found.append(Change(ability, metric, against(arm, old, new, seed), lost))
    return found


def differences(before: statistics.Strata, after: statistics.Strata) -> list[list[float]]:
    """after - before of each item, by stratum."""
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
    gaps = differences(old, new)
    n = sum(len(stratum) for stratum in old)
    low, high = statistics.difference_interval(gaps, seed)
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
        difference=statistics.mean_of(gaps),
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
        kept=statistics.kept(gaps, margin, seed),
        margin=margin,
        valid=against(READABLE, readable[0], readable[1], seed) if 0 < len(both) < n else None,
    )


def _gap(arms: tuple[Items, Items, Items], seed: int) -> GapRecovered:
    before, after, teacher = paired_strata(*arms)
    if not teacher:
        return GapRecovered(Gap.NO_TEACHER)
    return statistics.gap_recovered(before, after, teacher, seed)
