"""Draws of shots for in-context evaluation: class-balanced, nested, in drawn orders.

Each block of as many shots as there are labels holds every label once, in a drawn order; k shots
are the first k, so that k=2 is the beginning of k=4. From a pool a draw is the same for all items,
as in the literature (its accuracy then says how much hangs on the choice of shots), but for an
item that is among its own shots: the next text of that label stands in for it. An item that brings
its own shots is asked with these as they come, then with balanced draws from them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from pipeline.stage1_generate.curate.episodes import same_form

Item = TypeVar("Item")


class Shot(NamedTuple):
    text: str
    label: str


class Deck(NamedTuple):
    """A draw from a pool: more texts of each label than are shown, and whose turn it is."""

    texts: dict[str, list[str]]
    turns: list[str]

    def shots(self, item: str) -> list[Shot]:
        """The draw's shots for an item; neither the item's text nor one of the same form."""
        own = same_form(item)
        left = {
            label: iter([text for text in texts if same_form(text) != own])
            for label, texts in self.texts.items()
        }
        return [Shot(next(left[label]), label) for label in self.turns]


def most_shots(pool: Mapping[str, Sequence[str]], beside_items: bool) -> int:
    """How many balanced shots a pool allows; `beside_items`: an item may be one of its texts."""
    return len(pool) * (min(map(len, pool.values())) - beside_items)


def drawn_deck(pool: Mapping[str, Sequence[str]], most: int, salt: str) -> Deck:
    """A draw of `most` shots. The pool holds no two texts of the same form.

    A larger `most` has the same beginning, so that a larger k asks nothing again.
    """
    names = sorted(pool)
    blocks = -(-most // len(names))
    texts = {
        # One more than are shown, to stand in for an item that is among them.
        name: _first_shuffled(pool[name], blocks + 1, random.Random(f"{salt} {name}"))
        for name in names
    }
    rng = random.Random(f"{salt} turns")
    turns = [name for _ in range(blocks) for name in rng.sample(names, len(names))]
    return Deck(texts, turns[:most])


def _first_shuffled(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """The first of a Fisher-Yates shuffle: `random.sample` draws others for another count."""
    moved: dict[int, int] = {}
    found = []
    for place in range(min(count, len(texts))):
        other = rng.randrange(place, len(texts))
        found.append(texts[moved.get(other, other)])
        moved[other] = moved.get(place, place)
    return found


def own_draw(shots: Sequence[Shot], labelled: bool, draw: int, salt: str) -> list[Shot]:
    """A draw from the shots that an item brings: the first as they come, others anew."""
    if draw == 0:
        return list(shots)
    rng = random.Random(salt)
    mixed = rng.sample(shots, len(shots))
    if not labelled:
        return mixed
    groups: dict[str, list[Shot]] = {}
    for shot in sorted(mixed, key=lambda shot: shot.label):
        groups.setdefault(shot.label, []).append(shot)
    found: list[Shot] = []
    while len(found) < len(shots):
        block = [group.pop() for group in groups.values() if group]
        found += rng.sample(block, len(block))
    return found


def in_order(shots: Sequence[Item], order: int, salt: str) -> list[Item] | None:
    """The same shots in the order number `order`; None where there are not that many orders."""
    if order >= math.factorial(len(shots)):
        return None
    rng = random.Random(f"{salt} orders of {len(shots)}")
    places = list(range(len(shots)))
    seen = [tuple(places)]
    while len(seen) <= order:
        rng.shuffle(places)
        if tuple(places) not in seen:
            seen.append(tuple(places))
    return [shots[place] for place in seen[order]]
