"""What an answer says: the one frozen extractor of every arm and of stage 1's filters.

An item says which kind of answer it expects (`answer_kind`), or its labels, choices or reference
show it. Each kind has a file of its own for the rules. Any change of what is read changes scores:
raise `EXTRACTOR_VERSION`.

    number       number_answers.py    "12", "1/2", "\\boxed{\\sqrt{2}}"
    choice       choices.py           a letter of the item's choices
    option       named.py             one of the item's choices, by its text
    yes_no, true_false                named.py
    label        labels.py            one of the item's labels, for short answers
    list         lists.py             a list of numbers, "[3, 1]"
    letters, words, text              word_answers.py: "nk", a list of words, a short phrase
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Extraction, Finish, Seed
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.choices import extract_choice, options_of, plain, right_choice
from pipeline.stage3_evaluate.labels import extract_label
from pipeline.stage3_evaluate.lists import extract_list, same_list
from pipeline.stage3_evaluate.named import TRUE_FALSE, YES_NO, extract_named
from pipeline.stage3_evaluate.number_answers import extract_number, numbers_equal
from pipeline.stage3_evaluate.word_answers import (
    extract_letters,
    extract_text,
    extract_words,
    same_text,
    words_of,
)

__all__ = [
    "EXTRACTOR_VERSION",
    "AnswerKind",
    "Expected",
    "can_be_right",
    "expected_of",
    "extract_label",
    "extract_number",
    "is_right",
    "kind_of_references",
    "numbers_equal",
    "read_answer",
    "spelled",
]

EXTRACTOR_VERSION = "4"


class AnswerKind(StrEnum):
    """What kind of answer an item expects."""

    NUMBER = "number"
    CHOICE = "choice"
    OPTION = "option"
    YES_NO = "yes_no"
    TRUE_FALSE = "true_false"
    LABEL = "label"
    LIST = "list"
    LETTERS = "letters"
    WORDS = "words"
    TEXT = "text"


class Expected(msgspec.Struct, frozen=True):
    """How an item's answers are read; `options`: letter -> text, or text -> text."""

    kind: AnswerKind
    options: dict[str, str] = {}


def expected_of(
    seed: Seed, kind: AnswerKind | None = None, *, look_at_reference: bool = True
) -> Expected:
    """The kind of answer an item expects, or how it is read as `kind`.

    `answer_kind` if it says so; else a label where it has `labels`, a choice where it has
    `choices`; else what its reference looks like, unless that is not to be looked at; else a
    number. Raises `UserError` for an unknown kind, or choices that are none.
    """
    fields = seed.fields
    if kind is not None:
        pass
    elif (named := fields.get("answer_kind")) is not None:
        kind = _kind(named, seed)
    elif fields.get("labels"):
        kind = AnswerKind.LABEL
    elif "choices" in fields:
        kind = AnswerKind.CHOICE
    elif look_at_reference and seed.reference is not None:
        kind = kind_of_references([seed.reference]) or AnswerKind.NUMBER
    else:
        kind = AnswerKind.NUMBER
    try:
        return Expected(kind, _options(kind, fields))
    except ValueError as error:
        raise UserError(f"{seed.origin}: {error}") from None


def kind_of_references(references: Iterable[str]) -> AnswerKind | None:
    """The kind that all of some references look like; None for what a reference cannot tell.

    A choice needs its options and a list of words may be one word, so neither is guessed from a
    single reference: "(A)" alone is a choice only where all of them are.
    """
    texts = [text.strip() for text in references]
    if not texts or not all(texts):
        return None
    folded = {text.casefold() for text in texts}
    if folded <= {"yes", "no"}:
        return AnswerKind.YES_NO
    if folded <= {"true", "false"}:
        return AnswerKind.TRUE_FALSE
    if all(numerals.parse(text) is not None for text in texts):
        return AnswerKind.NUMBER
    if all(re.fullmatch(r"\([A-Z]\)", text) for text in texts):
        return AnswerKind.CHOICE
    return None


def read_answer(text: str, expected: Expected, finish: Finish) -> tuple[Extraction, str | None]:
    """The outcome and, for VALUE only, the value, in the spelling of its kind; never raises."""
    match expected.kind:
        case AnswerKind.NUMBER:
            return extract_number(text, finish)
        case AnswerKind.CHOICE:
            return extract_choice(text, expected.options, finish)
        case AnswerKind.OPTION:
            return extract_named(text, {name: (name,) for name in expected.options}, finish)
        case AnswerKind.YES_NO:
            return extract_named(text, YES_NO, finish, everyday=True)
        case AnswerKind.TRUE_FALSE:
            return extract_named(text, TRUE_FALSE, finish)
        case AnswerKind.LABEL:
            return extract_label(text, list(expected.options), finish)
        case AnswerKind.LIST:
            return extract_list(text, finish)
        case AnswerKind.LETTERS:
            return extract_letters(text, finish)
        case AnswerKind.WORDS:
            return extract_words(text, finish)
        case AnswerKind.TEXT:
            return extract_text(text, finish)


def is_right(value: str, reference: str, expected: Expected) -> bool:
    """Whether a value that was read says what the reference says."""
    match expected.kind:
        case AnswerKind.NUMBER:
            return numbers_equal(value, reference)
        case AnswerKind.CHOICE:
            return value == right_choice(reference, expected.options)
        case AnswerKind.LABEL:
            return value == reference
        case AnswerKind.LIST:
            return same_list(value, reference)
        case AnswerKind.LETTERS:
            return value == re.sub(r"[^a-z]", "", reference.casefold())
        case AnswerKind.WORDS:
            return value.split() == words_of(reference)
        case AnswerKind.TEXT:
            return same_text(value, reference)
        case _:
            return plain(value) == plain(reference)


def can_be_right(reference: str, expected: Expected) -> bool:
    """Whether an answer that says the reference, in any plain form, is read and is right."""
    for text in (reference, f"The answer is {reference}.", f'"{reference}"'):
        found, value = read_answer(text, expected, Finish.STOP)
        if found is Extraction.VALUE and value and is_right(value, reference, expected):
            return True
    return False


def spelled(value: str, expected: Expected) -> str:
    """A value so that two which say the same are equal strings: for votes."""
    if expected.kind is AnswerKind.NUMBER:
        number = numerals.parse(value)
        return value if number is None else str(number)
    return plain(value) if expected.kind is AnswerKind.TEXT else value


def _kind(named: Any, seed: Seed) -> AnswerKind:
    try:
        return AnswerKind(named)
    except ValueError:
        raise UserError(
            f"{seed.origin}: answer_kind is {named!r}; write one of {', '.join(AnswerKind)}"
        ) from None


def _options(kind: AnswerKind, fields: Mapping[str, Any]) -> dict[str, str]:
    match kind:
        case AnswerKind.LABEL:
            labels = fields.get("labels")
            if not isinstance(labels, list | tuple) or not labels:
                raise ValueError("the seed has no labels")
            return {str(label): str(label) for label in labels}
        case AnswerKind.CHOICE:
            return _choices(fields)
        case AnswerKind.OPTION:
            return {text: text for text in _choices(fields).values()}
        case _:
            return {}


def _choices(fields: Mapping[str, Any]) -> dict[str, str]:
    try:
        return options_of(fields.get("choices"))
    except ValueError as error:
        raise ValueError(f"the seed has no choices: {error}") from None
