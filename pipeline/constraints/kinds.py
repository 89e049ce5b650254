"""What a constraint type is made of: its parameters, its check, its draw and its wordings."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from pipeline.errors import UserError

Params = Mapping[str, Any]

LARGEST_COUNT = 10_000
LONGEST_TEXT = 200  # characters: a seed file is a stranger's, and its texts are looked for
MOST_TEXTS = 20


class Outcome(StrEnum):
    """Whether an answer does what a constraint asks."""

    FOLLOWED = "followed"
    BROKEN = "broken"


class Check(NamedTuple):
    """The outcome and, in a few words with numbers, why."""

    outcome: Outcome
    reason: str


class Param(StrEnum):
    """The forms a parameter can have; `problem_with` says what each allows."""

    COUNT = "a whole number from 1 to 10000"
    TEXT = "a text that is not blank, of at most 200 characters"
    TEXTS = "a list of at least one text that is not blank, at most 20 of at most 200 characters"
    LETTER = "one letter from a to z"


@dataclass(frozen=True)
class Kind:
    """One type of verifiable instruction.

    `check` judges a text that holds at least one word, with parameters known to be valid.
    `draw` gives sensible parameters for a language. `wordings` are format strings per language
    ("en", "zh"); a language that is not there cannot be asked for. Two kinds that share a slot
    cannot be asked for together. `literal` is the text that an answer must hold because of this
    constraint, and `breaks_on_fragment` says that a fragment which breaks this constraint
    breaks it wherever it stands: together they find clashes between parameters.
    """

    name: str
    family: str
    params: Mapping[str, Param]
    check: Callable[[Params, str], Check]
    draw: Callable[[random.Random, str], dict[str, Any]]
    wordings: Mapping[str, tuple[str, ...]]
    slots: frozenset[str] = frozenset()
    literal: Callable[[Params], str] | None = None
    breaks_on_fragment: bool = False


class Counted(int):
    """A number that brings its noun: `"{count:word}"` gives "1 word" and "2 words"."""

    def __format__(self, noun: str) -> str:
        if not noun:
            return str(int(self))
        return f"{int(self)} {noun}" if self == 1 else f"{int(self)} {noun}s"


class Quoted(tuple[str, ...]):
    """Words that bring their noun: `"{words:word}"` gives 'word "a"' and 'words "a" and "b"'."""

    __slots__ = ()

    def __format__(self, noun: str) -> str:
        if not noun:
            return "、".join(f"“{text}”" for text in self)
        quoted = " and ".join(f'"{text}"' for text in self)
        return f"{noun} {quoted}" if len(self) == 1 else f"{noun}s {quoted}"


def verdict(followed: bool, reason: str) -> Check:
    return Check(Outcome.FOLLOWED if followed else Outcome.BROKEN, reason)


def one_of(*values: Any) -> Callable[[random.Random, str], dict[str, Any]]:
    """A draw for kinds whose only parameter is `count`."""
    return lambda rng, language: {"count": rng.choice(values)}


def nothing(rng: random.Random, language: str) -> dict[str, Any]:
    """The draw of kinds that have no parameters."""
    return {}


def problem_with(form: Param, value: Any) -> str | None:
    """What is wrong with one parameter's value, or None."""
    match form:
        case Param.COUNT:
            fine = (
                isinstance(value, int)
                and not isinstance(value, bool)
                and 1 <= value <= LARGEST_COUNT
            )
        case Param.TEXT:
            fine = _is_text(value)
        case Param.TEXTS:
            fine = (
                isinstance(value, list | tuple)
                and 0 < len(value) <= MOST_TEXTS
                and all(_is_text(text) for text in value)
            )
        case Param.LETTER:
            fine = isinstance(value, str) and len(value) == 1 and value.lower() in LETTERS
    return None if fine else f"{value!r:.200} is not {form.value}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST_TEXT


LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")


def require_valid(kind: Kind, params: Params) -> None:
    """Raise `UserError` unless `params` are exactly what `kind` takes."""
    allowed = (
        ", ".join(f"{name}: {form.value}" for name, form in kind.params.items()) or "no parameters"
    )
    problems = [f"{name!r} is missing" for name in kind.params if name not in params]
    problems += [f"{name!r} is unknown" for name in params if name not in kind.params]
    for name, form in kind.params.items():
        if name in params and (problem := problem_with(form, params[name])):
            problems.append(f"{name}: {problem}")
    if problems:
        raise UserError(
            f"constraint {kind.name!r}: {'; '.join(problems)}. It takes {allowed}. "
            f"Correct its `params`."
        )
