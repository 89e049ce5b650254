"""Filters: small pure units that say keep, or drop with a reason and a score.

    validity.py       finish, empty, length, repetition, refusal
    correctness.py    answer (against the reference), constraints (verified), schema
    contamination.py  overlap with the evaluation's items
    duplicates.py     exact_duplicates

A filter is made from its settings (`length(max_tokens=512)`) and called with a `Candidate`. Most
look at one row. Some have more:

    gather(row)     it judges a row by other rows (a vote, a share that passed): it is first shown
                    every row that the filters before it keep; `saw(row)`, where it has that, all
    looks_back      true: its verdict depends on the rows that it kept before; it comes last
    by, load(...)   it needs the answers of the task `by`, and gets them before the first row

judge.py applies the common ones in the order of the config, then the task's own, then
contamination, and those that look back last of all. Nothing here ever asks a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from pipeline.errors import UserError
from pipeline.records import Decision, Example, Generation, Request, Seed, Verdict


class Candidate(msgspec.Struct, frozen=True):
    """One answer on its way into the training set."""

    seed: Seed
    request: Request
    generation: Generation
    example: Example  # the main one of `examples`
    examples: tuple[Example, ...] = ()  # all training rows of the answer; empty: that one alone
    teacher: str = ""  # its name in the config


Filter = Callable[[Candidate], Verdict]


def keep(filter_name: str, score: float | None = None) -> Verdict:
    return Verdict(Decision.KEEP, filter_name, score=score)


def drop(filter_name: str, reason: str, score: float | None = None) -> Verdict:
    return Verdict(Decision.DROP, filter_name, reason, score)


def filter_kinds() -> dict[str, Callable[..., Filter]]:
    """Every filter by its name in the config: what makes it from its settings."""
    from pipeline.stage1_generate.curate import correctness, duplicates, validity

    return {
        "finish": validity.finish,
        "empty": validity.empty,
        "length": validity.length,
        "repetition": validity.repetition,
        "refusal": validity.refusal,
        "answer": correctness.answer,
        "constraints": correctness.constraints,
        "schema": correctness.schema,
        "exact_duplicates": duplicates.ExactDuplicates,
    }


def make_filter(name: str, settings: dict[str, Any], place: str) -> Filter:
    """A filter by its name in the config; a wrong name or setting is a `UserError`."""
    known = filter_kinds()
    if name not in known:
        raise UserError(f"{place}: filter {name!r} is not known; allowed: {', '.join(known)}")
    allowed = inspect.signature(known[name]).parameters
    wrong = [key for key in settings if key not in allowed]
    if wrong:
        raise UserError(
            f"{place}.{name}: unknown setting {wrong[0]!r}; allowed: {', '.join(allowed) or 'none'}"
        )
    hints = get_type_hints(known[name])
    for key, value in settings.items():
        try:
            msgspec.convert(value, hints[key])
        except msgspec.ValidationError as error:
            raise UserError(f"{place}.{name}.{key}: {error}; seen: {value!r}") from None
    try:
        return known[name](**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}.{name}: {error}") from None
