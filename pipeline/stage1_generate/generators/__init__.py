"""Seeds made by rule, from a number: `{generator: NAME, n: ..., ...}` in a config.

The same name, n, seed and options always give the same rows. A row is a plain dictionary in the
form of a seed-file line.

    word_problems              arithmetic stories with a known answer and a number of steps
    coin_flips                 does a coin still show heads after some people flipped it
    last_letters               the last letters of some names, joined
    object_tracking            who holds what after some swaps
    symbolic                   these three in turn
    symbol_mapping             in-context episodes whose labels mean nothing outside the episode
    classification             in-context episodes from a file of labelled sentences
    list_functions             in-context episodes of lists that a hidden rule changes
    constrained_instructions   instructions of a file, with verifiable constraints added
    blank                      one seed that says nothing, for a teacher that needs none (magpie)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import UserError
from pipeline.stage1_generate.generators.constrained import constrained_instructions
from pipeline.stage1_generate.generators.episodes import classification, symbol_mapping
from pipeline.stage1_generate.generators.list_functions import list_functions
from pipeline.stage1_generate.generators.symbolic import (
    coin_flips,
    last_letters,
    object_tracking,
    symbolic,
)
from pipeline.stage1_generate.generators.word_problems import word_problems


def blank(n: int, seed: int, language: str) -> Iterator[dict[str, Any]]:
    """A single seed: two that say nothing would be the same request, asked once."""
    if n != 1:
        raise UserError(f"generator blank: n is {n}; write `n: 1` and ask it often with `samples`")
    yield {"id": "blank", "question": "(nothing)"}


GENERATORS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "word_problems": word_problems,
    "coin_flips": coin_flips,
    "last_letters": last_letters,
    "object_tracking": object_tracking,
    "symbolic": symbolic,
    "symbol_mapping": symbol_mapping,
    "classification": classification,
    "list_functions": list_functions,
    "constrained_instructions": constrained_instructions,
    "blank": blank,
}
_GIVEN = ("n", "seed", "language")


def generate(
    name: str, n: int, seed: int, language: str = "en", **options: Any
) -> Iterator[dict[str, Any]]:
    """`n` rows of a generator; `language` is "en" or "zh".

    Raises `UserError` (at the first row at the latest) for an unknown name, option or value, and
    where there are fewer than `n` different rows.
    """
    if name not in GENERATORS:
        raise UserError(
            f"generator {name!r} is unknown. Known: {', '.join(GENERATORS)}. "
            "Write one of them under `generator:`."
        )
    make = GENERATORS[name]
    allowed = [key for key in inspect.signature(make).parameters if key not in _GIVEN]
    if unknown := [key for key in options if key not in allowed]:
        raise UserError(
            f"generator {name}: unknown option {', '.join(map(repr, unknown))}. "
            f"It takes {', '.join(allowed)}. Correct or remove it."
        )
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UserError(f"generator {name}: n is {n!r}; write a whole number from 1, as `n: 100`")
    if language not in ("en", "zh"):
        raise UserError(f"generator {name}: language is {language!r}; write en or zh")
    return make(n=n, seed=seed, language=language, **options)
