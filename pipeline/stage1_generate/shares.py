"""Shares of a task's seeds that recipes treat in another way, drawn by a hash of each seed's id.

So a seed stays on its side when others are added, taken away or put in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import UserError
from pipeline.records import Seed, digest


def chosen(seed: Seed, share: Any, option: str) -> bool:
    """Is the seed among this share of all?"""
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise UserError(
            f"tasks.{seed.task}.options.{option}: a share from 0 to 1, as 0.5; seen: {share!r}"
        )
    return bool(_place(seed, option) < share)


def drawn(seed: Seed, shares: Any, option: str, allowed: Sequence[str]) -> str:
    """Which of several ways a seed goes, by shares that add up to 1."""
    fine = isinstance(shares, dict) and shares and set(shares) <= set(allowed)
    values = list(shares.values()) if fine else []
    numbers = all(type(value) in (int, float) and value >= 0 for value in values)
    if not fine or not numbers or not 0.999 < sum(values) < 1.001:
        raise UserError(
            f"tasks.{seed.task}.options.{option}: shares of {', '.join(allowed)} that add up to 1, "
            f"as {{{allowed[0]}: 0.6, {allowed[1]}: 0.4}}; seen: {shares!r}"
        )
    place, reached = _place(seed, option), 0.0
    for way in allowed:
        reached += shares.get(way, 0)
        if place < reached:
            return way
    return next(way for way in reversed(allowed) if shares.get(way))


def evenly(seed: Seed, low: int, high: int, option: str) -> int:
    """A whole number from `low` to `high`, each as often."""
    return low + int(_place(seed, option) * (high - low + 1))


def _place(seed: Seed, option: str) -> float:
    """Evenly from 0 up to (not including) 1; another one for every option."""
    return int(digest([option, seed.id], 12), 16) / 16.0**12
