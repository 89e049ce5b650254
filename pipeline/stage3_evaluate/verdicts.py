"""What a comparison of the student after with before comes to, and why.

"Distilled" is a claim of several parts, and as strong as its weakest: after beats before, and
every control, also on the items that both answered readably, on the sets beyond what was trained,
and with all training seeds together. Its p is the largest of theirs (an intersection-union test,
Berger 1982), and the claims are adjusted by Holm as a family of their own.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pipeline.config_evaluate import CONTROL
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.statistics import GapRecovered

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
    """One side less another on one metric, paired by item; the p is two-sided, unadjusted."""

    arm: str  # what it is compared with, or on
    control: float  # the other side's value
    difference: float
    low: float
    high: float
    p: float
    n: int


class Seeds(msgspec.Struct, frozen=True):
    """Several trainings less before: an item's value is its mean over them."""

    arms: list[str]
    differences: list[float]  # of each
    together: Against


class Change(msgspec.Struct, frozen=True):
    """A student that was trained, less before, on one metric: a cell of the matrix."""

    ability: str
    metric: str
    found: Against  # `arm` is the trained student
    kept: statistics.Kept


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
    verdict: Finding
    reason: str
    kept: statistics.Kept | None = None  # is any loss smaller than the margin
    margin: float = 0.05
    controls: list[Against] = []  # after - each control
    unasked: list[str] = []  # controls and seeds that are arms, and have no answers here
    valid: Against | None = None  # after - before on the items that both answered readably
    seeds: Seeds | None = None  # all trainings of the student together
    beyond: list[Against] = []  # after - before beyond what was trained: all, then each set


def decided(comparisons: list[Comparison], than: str = "before") -> list[Comparison]:
    """With their verdicts, once Holm's adjustment over the whole family is known."""
    adjusted = statistics.holm([comparison.p for comparison in comparisons])
    claims = statistics.holm([max([c.p, *(part.p for part in _parts(c))]) for c in comparisons])
    found: list[Comparison] = []
    for comparison, p, claim in zip(comparisons, adjusted, claims, strict=True):
        moved = msgspec.structs.replace(comparison, p_adjusted=p)
        verdict, reason = _verdict(moved, claim, than)
        found.append(msgspec.structs.replace(moved, verdict=verdict, reason=reason))
    return found


def _parts(found: Comparison) -> list[Against]:
    """What has to be better as well, the weakest first."""
    parts = [*found.controls, *found.beyond[:1], *([found.valid] if found.valid else [])]
    if found.seeds:
        parts.append(found.seeds.together)
    return sorted(parts, key=lambda part: part.low)


def _verdict(found: Comparison, p_claim: float, than: str) -> tuple[Finding, str]:
    if found.p_adjusted < ALPHA and found.low > 0:
        return _gained(found, p_claim, than)
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


def _gained(found: Comparison, p_claim: float, than: str) -> tuple[Finding, str]:
    # A student that only learned to answer in the form that is read must not look wiser.
    unread = found.gained - found.gained_readable
    form = f" ({unread} of them cut off or unreadable {_then(than)})" if unread else ""
    counts = f"better on {found.gained} items{form}, worse on {found.lost}"
    if found.gained_readable < FORM_SHARE * found.gained:
        return Finding.FORM, counts
    if found.unasked:
        names = " and ".join(found.unasked)
        return Finding.INCONCLUSIVE, f"better than {than}, but {names} has no answers to compare"
    if found.seeds and min(found.seeds.differences) <= 0:
        worst = min(zip(found.seeds.differences, found.seeds.arms, strict=True))
        return (
            Finding.INCONCLUSIVE,
            f"better than {than}, but not with every training seed "
            f"({worst[1]}: {100 * worst[0]:+.0f} points)",
        )
    if parts := _parts(found):
        weakest = parts[0]
        if weakest.low <= 0 or p_claim >= ALPHA:
            return Finding.INCONCLUSIVE, f"better than {than}, but not clearly {_part(weakest)}"
    return Finding.DISTILLED, counts


def _part(part: Against) -> str:
    if part.arm.startswith(CONTROL):
        name = part.arm.removeprefix(CONTROL).replace("_", " ")
        what = f"better than the control {name}"
    else:
        what = part.arm
    points = [f"{100 * value:+.0f}" for value in (part.difference, part.low, part.high)]
    return f"{what} ({points[0]} points, {points[1]} to {points[2]})"


def _then(than: str) -> str:
    return than if than == "before" else f"by {than}"
