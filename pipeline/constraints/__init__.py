"""Verifiable instructions: what can be asked of an answer and checked without a judge.

Stage 1 keeps the teacher's answers that follow them, stage 3 counts how often a model does. A
constraint is a type and its parameters (`pipeline.records.Constraint`); each family has a file.
Checks are pure, deterministic and linear in the answer's length. An answer without a word
follows nothing. The idea of checking by code, and the strict and loose protocols: IFEval,
arXiv 2311.07911; the types, wordings and checks here are our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any

from pipeline.constraints import ends, keywords, layout, length, letters, marked, punctuation
from pipeline.constraints.kinds import Check, Counted, Kind, Outcome, Quoted, require_valid
from pipeline.errors import UserError
from pipeline.records import Constraint, digest

__all__ = [
    "Check",
    "Outcome",
    "check",
    "check_loose",
    "conflict",
    "describe",
    "draw",
    "families",
    "follows_loose",
    "follows_strict",
    "kind_named",
    "languages",
    "loose_variants",
    "require_known",
    "types",
]

_KINDS: dict[str, Kind] = {
    kind.name: kind
    for module in (length, letters, keywords, layout, marked, ends, punctuation)
    for kind in module.KINDS
}

_NO_WORD = Check(Outcome.BROKEN, "no word in the answer")


def types() -> tuple[str, ...]:
    """The names of all constraint types."""
    return tuple(_KINDS)


def families() -> dict[str, tuple[str, ...]]:
    """The type names of each family."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in _KINDS.values():
        found[kind.family] = (*found.get(kind.family, ()), kind.name)
    return found


def languages(type_name: str) -> tuple[str, ...]:
    """The languages in which a type can be asked for: "en", or "en" and "zh"."""
    return tuple(kind_named(type_name).wordings)


def require_known(constraint: Constraint) -> None:
    """Raise `UserError` for an unknown type or parameters that the type does not take."""
    require_valid(kind_named(constraint.type), constraint.params)


def check(constraint: Constraint, text: str) -> Check:
    """Judge one answer by one constraint.

    Raises `UserError` for an unknown type or parameters that the type does not take.
    """
    kind = kind_named(constraint.type)
    require_valid(kind, constraint.params)
    if not _has_word(text):
        return _NO_WORD
    return kind.check(constraint.params, text)


def check_loose(constraint: Constraint, text: str) -> Check:
    """FOLLOWED if any of `loose_variants` is; otherwise the verdict on the text itself."""
    strict = check(constraint, text)
    if strict.outcome is Outcome.FOLLOWED:
        return strict
    for variant in loose_variants(text)[1:]:
        loose = check(constraint, variant)
        if loose.outcome is Outcome.FOLLOWED:
            return loose
    return strict


def follows_strict(constraints: Iterable[Constraint], text: str) -> Check:
    """FOLLOWED if every constraint is, with the text as it stands; else the first one broken."""
    return _all(check(constraint, text) for constraint in constraints)


def follows_loose(constraints: Iterable[Constraint], text: str) -> Check:
    """As `follows_strict`; each constraint may be followed by another variant of the text."""
    return _all(check_loose(constraint, text) for constraint in constraints)


def loose_variants(text: str) -> list[str]:
    """The text, and what is left of it without its first line, its last line or both, each with
    and without Markdown stars: an answer is not failed for "Sure, here it is:" around it."""
    rows = text.split("\n")
    cuts = (rows, rows[1:], rows[:-1], rows[1:-1])
    bodies = ["\n".join(cut).strip() if cut is not rows else text for cut in cuts]
    variants = bodies + [body.replace("*", "").strip() for body in bodies]
    return list(dict.fromkeys(variant for variant in variants if variant)) or [text]


def describe(constraint: Constraint, language: str = "en", salt: str = "") -> str:
    """The sentence that asks for a constraint.

    One of several wordings, chosen by a hash of the constraint and `salt` (say, an item's id),
    so that one seed always reads the same and a data set does not teach one wording only.
    """
    kind = kind_named(constraint.type)
    require_valid(kind, constraint.params)
    wordings = _in_language(kind, language)
    pick = int(digest([constraint, language, salt], length=8), 16) % len(wordings)
    values = {name: _shown(value) for name, value in constraint.params.items()}
    return wordings[pick].format(**values)


def draw(type_name: str, rng: random.Random, language: str = "en") -> Constraint:
    """A constraint of this type with sensible parameters; the same `rng` state, the same ones."""
    kind = kind_named(type_name)
    _in_language(kind, language)
    return Constraint(type_name, kind.draw(rng, language))


def conflict(first: Constraint, second: Constraint) -> str | None:
    """Why no answer should be asked to follow both, or None if they go together."""
    one, other = kind_named(first.type), kind_named(second.type)
    if one.name == other.name:
        return f"{one.name} twice"
    if shared := one.slots & other.slots:
        return f"{one.name} and {other.name} both set the {', '.join(sorted(shared))}"
    for a, b in ((first, second), (second, first)):
        kind, literal = kind_named(a.type), kind_named(b.type).literal
        if kind.breaks_on_fragment and literal is not None and _breaks(a, literal(b.params)):
            return f"{b.type} asks for {literal(b.params)!r}, which breaks {a.type}"
    return None


def _breaks(constraint: Constraint, fragment: str) -> bool:
    kind = kind_named(constraint.type)
    return kind.check(constraint.params, fragment).outcome is Outcome.BROKEN


def _all(checks: Iterable[Check]) -> Check:
    for found in checks:
        if found.outcome is Outcome.BROKEN:
            return found
    return Check(Outcome.FOLLOWED, "all followed")


def _has_word(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None


def kind_named(name: str) -> Kind:
    """What a type is made of, or a `UserError` that lists the types."""
    if name not in _KINDS:
        raise UserError(
            f"constraint type {name!r} is unknown. Known: {', '.join(sorted(_KINDS))}. "
            f"Use one of these names as `type`."
        )
    return _KINDS[name]


def _in_language(kind: Kind, language: str) -> tuple[str, ...]:
    if language not in kind.wordings:
        raise UserError(
            f"constraint {kind.name!r} cannot be asked for in {language!r}, only in "
            f"{', '.join(kind.wordings)}. Take another language or leave the type out."
        )
    return kind.wordings[language]


def _shown(value: Any) -> Any:
    if isinstance(value, int):
        return Counted(value)
    return value if isinstance(value, str) else Quoted(value)
