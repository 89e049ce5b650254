"""Where an answer that is no number is stated: the marks that all such kinds share."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.records import Extraction
from pipeline.stage3_evaluate.markup import strip_markup
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN

Read = tuple[Extraction, str | None]  # the outcome and, for VALUE only, the value

NOTHING: Read = (Extraction.NO_ANSWER, None)
CUT: Read = (Extraction.TRUNCATED, None)

_STATEMENTS = 60  # at each end; more is a model that repeats itself
_LONGEST = 400  # characters of a statement
VERB = (
    r"(?:is|was|are|(?:will|would|should|must|can|might|could)(?:\s+then)?\s+be|equals?|becomes"
    r"|has to be)\b"
)
_MARKER = re.compile(
    rf"\banswers?\b(?:[^.\n=:?!]{{0,60}}?(?:\b{VERB}\s*[:=]?|[:=]|->|→)|\s+-\s|\s*(?=\())|####"
    rf"|\bans\s*[:=.]|{BOX_OPEN}"
    r"|答案\s*(?:应该?)?[是为:]{1,2}",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?。\n][ \t]*)(?:oh |hmm,? )?(?:wait|actually|correction|hold on|不对|更正|等等)\b",
    re.IGNORECASE,
)
# Before a statement: it only asks, or doubts.
_DOUBTED = re.compile(
    r"\b(?:whether|if|not sure|unsure|(?:don't|do not|doesn't|can't|cannot) (?:know|tell|say))"
    r"[^.!?\n]{0,40}$",
    re.IGNORECASE,
)
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:#+[ \t]*)?(?:Q|Question|Problem|Input|Human|User|问题|问|题目)\s*\d*\s*:",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]]|$)|。|\n")
DECLINED = re.compile(
    r"\b(?:sorry|i (?:cannot|can't|can not|am unable|don't|do not)|i'm (?:unable|not)"
    r"|not enough information|cannot be determined)\b|无法|不知道",
    re.IGNORECASE,
)


class Statement(NamedTuple):
    """What follows a mark such as "The answer is": its words, and where they start in the text."""

    rest: str
    start: int


def cleaned(text: str, *, cut: bool) -> str:
    """Without wrapping, boxes marked; LaTeX's text commands are gone, the dollars around too."""
    text = strip_markup(text, cut=cut)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(
        r"\\(?:boxed|fbox)\s*\{([^{}]*)\}",
        lambda match: f"{BOX_OPEN}{match[1]}{BOX_CLOSE}",
        text,
    )
    return re.sub(r"\\[()\[\]]|\$", " ", text).rstrip()


def statements(clean: str, more: re.Pattern[str] | None = None) -> list[Statement]:
    """Every statement of an answer in order, those after an invented next question left out.

    `more`: further marks, of one kind of answer.
    """
    marks = list(_MARKER.finditer(clean)) + (list(more.finditer(clean)) if more else [])
    marks.sort(key=lambda mark: (mark.end(), mark.start()))
    if len(marks) > 2 * _STATEMENTS:
        marks = marks[:_STATEMENTS] + marks[-_STATEMENTS:]
    found: list[Statement] = []
    for mark in marks:
        if found and _NEXT_QUESTION.search(clean, found[-1].start, mark.start()):
            break  # The model has gone on to invent another question and its answer.
        if _DOUBTED.search(clean, max(0, mark.start() - 80), mark.start()):
            continue
        start = mark.end()
        while start < len(clean) and clean[start].isspace():  # the answer may be on the next line
            start += 1
        found.append(Statement(clean[start : start + _LONGEST].split(BOX_CLOSE)[0], start))
    return found


def taken_back(clean: str, start: int) -> int | None:
    """Where the first "Wait, ..." behind `start` begins."""
    found = _TAKEN_BACK.search(clean, start)
    return None if found is None else found.end()


def without_half(clean: str) -> str:
    """Without the word at the very end, of which the rest may have been cut off."""
    tail = re.search(r"\w{1,60}$", clean[-60:])
    return clean[: -len(tail.group())] if tail else clean


def sentences(text: str) -> list[str]:
    """The sentences of a text that say something, stripped."""
    return [part.strip() for part in _split(text) if re.search(r"\w", part)]


def first_sentence(text: str) -> str:
    """Up to the first full stop or the end of the line."""
    found = _SENTENCE_END.search(text)
    return text[: found.start()] if found else text


def _split(text: str) -> list[str]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        found.append(text[start : end.end()])
        start = end.end()
    return [*found, text[start:]]
