"""Explicit statements of a number ("The answer is N", "#### N", \\boxed{N}) and what they say.

A statement that hedges ("7 or 8", "between 3 and 5") or works nothing out ("5 + 7", "one more
than 5") is no answer; one that goes on to a result ("10% of 50, which is 5") is that result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.number_roles import (
    COMPARES,
    OPERATOR,
    Role,
    is_share,
    is_vague,
    or_word,
    roles_of,
    words_after,
)
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN, leading_words

_VERB = (
    r"(?:is|was|are|(?:will|would|should|must|can|might|could)(?:\s+then)?\s+be|equals?|becomes"
    r"|comes\s+(?:out\s+)?to)\b"
)
_MARKERS = re.compile(
    rf"\banswers?\b(?:[^.\n=:?!]|\.(?=\d)){{0,80}}?(?:\b{_VERB}\s*[:=]?|[:=]|->|→)"
    r"|####|\bans\s*[:=]"
    r"|(?:答案|结果|得数)[^。\n=:?!是为不]{0,20}(?:应该?是|应该?为|就是|等于|[是为])\s*[:=]?"
    r"|(?:答案|答|结果|得数)\s*[:=]",
    re.IGNORECASE,
)
_STATEMENTS = 60  # at each end; more is a model that repeats itself
_LONGEST_SENTENCE = 500  # characters; keeps a text of nothing but markers linear
_BOX = re.compile(f"{BOX_OPEN}([^{BOX_CLOSE}]*){BOX_CLOSE}")
SENTENCE_END = re.compile(r"(?<!\d)[.](?=\s|$)|(?<=\d)\.(?=\s|$)|[!?。;\n]")
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:#+[ \t]*)?(?:Q|Question|Problem|Input|Human|User|问题|问|题目)\s*\d*\s*:",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?。\n][ \t]*)(?:wait|actually|correction|hold on|不对|更正|等等)\b\W?", re.IGNORECASE
)
_UNKNOWN = re.compile(
    r"\b(?:unknown|undefined|impossible|not (?:known|given|possible|clear|enough)|cannot|can't"
    r"|none|unclear|indeterminate|n/a)\b|无法|不知道|未知|不能确定",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"\b(?:so|therefore|thus|hence|giving|gives|leaving|leaves"
    r"|which (?:is|are|was|means|makes|gives|equals|comes to|rounds (?:up |down |off )?to)"
    r"|total of|i\.?e|namely)\b"
    r"|[,;:(-]\s*that(?:'s|’s|\s(?:is|makes|gives|equals))\b"
    r"|(?:^|[,;:]|\b(?:and|is|are))\s*(?:in (?:a )?total|altogether)\b"
    r"|所以|因此|一共|总共|还剩|剩下|共有?|也就是说?|(?<!立)即|等于",
    re.IGNORECASE,
)
ASIDE = re.compile(r"[,;(:]|\b(?:because|since|as|so|then|and|which|when|if)\b|因为")
_REASON = re.compile(r"\b(?:because|since|as)\b|\(|因为", re.IGNORECASE)
LATEX_MATH = re.compile(r"\\(?:sqrt|pi|d?frac|cdot|times)|\^")


class Stated(NamedTuple):
    value: str | None  # None: the statement says outright that there is no number
    end: int  # where in the cleaned text the value ends


def explicit(clean: str, otherwise: Callable[[str], str | None]) -> Stated | None:
    """The last statement that names a number; None when nothing is stated.

    `otherwise` reads a text that states nothing; it is for what follows a "Wait, ...".
    """
    statements: list[Stated] = []
    denied: Stated | None = None
    for start, end, sentence in _statement_sentences(clean):
        later = _NEXT_QUESTION.search(clean, statements[-1].end, start) if statements else None
        if later is not None:
            break  # The model has gone on to invent another question and its answer.
        found = _boxed_latex(sentence) or _read_statement(sentence)
        unknown = _UNKNOWN.search(sentence)
        if found is None or (unknown and unknown.end() < found.end):
            if unknown or numerals.MASK in sentence:
                denied = Stated(None, start)
        elif found.value is None:
            denied = Stated(None, end - len(sentence) + found.end)
        else:
            statements.append(Stated(found.value, end - len(sentence) + found.end))
    if not statements:
        return denied
    last = statements[-1]
    if _TAKEN_BACK.search(clean, last.end):
        revised = otherwise(clean[last.end :])
        if revised is not None:
            return Stated(revised, len(clean) + 1)  # no statement: a cut may follow
    return last


def _statement_sentences(clean: str) -> list[tuple[int, int, str]]:
    """(where the marker starts, where the sentence ends, the words that follow the marker)."""
    spans: list[tuple[int, int, str]] = []
    for box in _BOX.finditer(clean):
        spans.append((box.start(), box.end() - 1, box.group(1)))
    for marker in _MARKERS.finditer(clean):
        begin = marker.end()
        # "Answer:" may stand alone on its line, with the number on the next one.
        limit = min(len(clean), begin + _LONGEST_SENTENCE)
        while begin < limit and not clean[begin].isalnum() and clean[begin] not in "-$.\\":
            if clean[begin] in f"{numerals.MASK}{BOX_OPEN}":
                break
            begin += 1
        limit = min(len(clean), begin + _LONGEST_SENTENCE)
        stop = SENTENCE_END.search(clean, begin, limit)
        end = stop.start() if stop else limit
        spans.append((marker.start(), end, clean[begin:end]))
    spans.sort(key=lambda span: (span[0], span[1]))
    if len(spans) > 2 * _STATEMENTS:
        return spans[:_STATEMENTS] + spans[-_STATEMENTS:]
    return spans


def _boxed_latex(sentence: str) -> Stated | None:
    """LaTeX that is no plain number, when a box holds it: `\\boxed{\\sqrt{2}}`."""
    box = _BOX.search(sentence)
    inside = box.group(1) if box else sentence
    if LATEX_MATH.search(inside) and "\\" in inside and (box or sentence.startswith("\\")):
        return Stated(inside.strip(), (box.end() if box else len(sentence)))
    return None


def _read_statement(sentence: str) -> Stated | None:
    """The number of one explicit statement, which may be a chain such as "5 + 7 = 12"."""
    worded = leading_words(sentence)
    if worded is not None:
        hedged = or_word(sentence, worded[1])
        return Stated(None if hedged else numerals.canonical(worded[0]), worded[1])
    numbers = [
        number
        for number in numerals.find(sentence)
        if not re.search(r"\bnot\s*$|不是$", sentence[max(0, number.start - 8) : number.start])
    ]
    if not numbers:
        opened = re.match(r"\W*(?:somewhere\s+)?(?:either|between|from)\s", sentence, re.IGNORECASE)
        return Stated(None, len(sentence)) if opened and words_after(sentence, opened) else None
    first = numbers[0]
    if numerals.MASK in sentence[: first.start]:
        return None  # "The answer is 3:30 on 5 ..." states a time.
    roles = roles_of(sentence, numbers)
    kept = [number for number in numbers if number not in roles]
    lead = kept[0] if kept else first
    worded_start = re.search(r"[A-Za-z\u4e00-\u9fff]{2}", sentence[: first.start]) is not None
    if _leads_to_equals(sentence, lead, worded_start):
        return chain_result(sentence, _apart(roles))
    concluded = _concluded(sentence, kept)
    calculates = OPERATOR.match(sentence, lead.end) is not None
    share = is_share(sentence, lead)
    if concluded and (calculates or share or worded_start or first in roles):
        return concluded
    if calculates:
        return Stated(None, lead.end)  # "The answer is 5 + 7": nothing was worked out.
    if roles.get(first) is Role.ALTERNATIVE or (not kept and is_vague(roles)):
        return Stated(None, len(sentence))
    return Stated(lead.text, len(sentence) if share else lead.end)


def _apart(roles: dict[numerals.Found, Role]) -> set[int]:
    return {number.end for number, role in roles.items() if role is not Role.SETTING}


def _leads_to_equals(sentence: str, lead: numerals.Found, worded_start: bool) -> bool:
    """Whether the "=" is the statement itself and no reason given for it.

    A statement that tells its story first ("There are 180 eggs for 20 people, 180 / 20 = 9") ends
    in its value; one that starts with a number has named it.
    """
    equals = sentence.find("=")
    if equals < 0:
        return False
    stop = _REASON if worded_start else ASIDE
    return not stop.search(sentence[lead.end : max(equals, lead.end)])


def _concluded(sentence: str, kept: list[numerals.Found]) -> Stated | None:
    """What the last "which is", "so" or "total of" leads to, unless it only compares."""
    for match in reversed(list(_CONCLUSION.finditer(sentence))):
        tail = sentence[match.end() :]
        after = [number for number in kept if number.start >= match.end()]
        if not after:
            continue
        equals = tail.find("=")
        if equals >= 0 and not ASIDE.search(sentence[after[0].end : match.end() + equals]):
            result = chain_result(tail, set())
            if result is not None:
                return Stated(result.value, match.end() + result.end)
        if OPERATOR.match(sentence, after[0].end) or is_share(sentence, after[0]):
            continue
        if not COMPARES.match(sentence, after[0].end):
            return Stated(after[0].text, after[0].end)
    return None


def chain_result(sentence: str, apart: set[int]) -> Stated | None:
    """The side of the last "=" that is a number and no expression: 12 in "5 + 7 = 12 apples".

    `apart` holds where the numbers end that are only alternatives, bounds or operands.
    """
    offset = len(sentence)
    for piece in reversed(sentence.split("=")):
        offset -= len(piece)
        numbers = numerals.find(piece)
        if numbers and not OPERATOR.match(piece, numbers[0].end):
            end = offset + numbers[0].end
            return Stated(None if end in apart else numbers[0].text, end)
        offset -= 1
    return None
