"""The parts of a rationale: its equations, its words, and the sentence that states the answer.

The equation list is how rejection-sampling fine-tuning tells two solutions of one problem apart
(RFT, 2308.01825, section 3.3): the same steps in other words teach nothing new.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.records import Extraction, Generation, Seed
from pipeline.stage3_evaluate.answers import expected_of, read_answer

_NUMBER = r"[$€£¥]?(?:\d++(?:\.\d++)?+|\.\d++)%?"
# A unit may stand after a number: "5 pens/bag * 6 full bags = 30". All repeats are bounded: the
# text is a stranger's.
_UNIT = r"(?:\s?/?[A-Za-z][A-Za-z/]{0,14}|\s?[\u3400-\u9fff]{1,3}){0,4}?"
_OPERATOR = r"\s{0,3}(?:[+\-*/×÷·−–∗x]|\\times|\\div|\\cdot)\s{0,3}"
_EQUATION = re.compile(
    rf"(?<![\d.])\(?{_NUMBER}{_UNIT}\)?(?:{_OPERATOR}\(?{_NUMBER}{_UNIT}\)?){{1,12}}\s{{0,3}}=\s{{0,3}}"
    rf"-?{_NUMBER}"
)
_SIGNS = str.maketrans({"×": "*", "·": "*", "∗": "*", "÷": "/", "−": "-", "–": "-"})
_DECIMAL = re.compile(r"\d*\.\d+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_STATES = re.compile(
    r"\b(?:final\s+)?answer\b.{0,40}?(?:\bis\b|[:=])|^\W*(?:ans|answer)\W*[:=]|####|\\boxed"
    r"|答案.{0,10}?[是为:：=]",
    re.IGNORECASE,
)
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")
_HAN = re.compile(r"[\u3400-\u9fff]")


class Rationale(NamedTuple):
    """A text without its closing statement, and that statement ("" where it makes none)."""

    steps: str
    closing: str


def equations(text: str) -> tuple[str, ...]:
    """The equations of a text in order, in one spelling: ("5+3=8", "8*2=16")."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    plain = plain.replace(r"\times", "*").replace(r"\cdot", "*").replace(r"\div", "/")
    found = []
    for match in _EQUATION.finditer(plain):
        signs = re.sub(r"(?<=[\d\s)])x(?=[\d\s(])", "*", match.group()).translate(_SIGNS)
        bare = re.sub(r"/?[A-Za-z][A-Za-z/]*|[^\d.+\-*/=]", "", signs)
        found.append(_DECIMAL.sub(_plain, bare))
    return tuple(found)


def _plain(decimal: re.Match[str]) -> str:
    """One spelling of .5, 0.5 and 0.50."""
    whole, part = decimal.group().split(".")
    part = part.rstrip("0")
    return f"{whole or '0'}.{part}" if part else whole or "0"


def words(text: str) -> frozenset[str]:
    """The words of a text, lower case; a Chinese character is one."""
    return frozenset(_WORD.findall(text.lower()))


def parts(text: str) -> Rationale:
    """Cut the closing statement ("The answer is 8.") off, if the last sentence is one."""
    body = text.strip()
    cuts = [match.end() for match in _SENTENCE.finditer(body)]
    last = max((cut for cut in cuts if cut < len(body)), default=0)
    if last and _STATES.search(body[last:]):
        return Rationale(body[:last].rstrip(), body[last:].strip())
    return Rationale(body, "")


def stated_answer(seed: Seed, generation: Generation) -> str | None:
    """The answer by the evaluation's extractors, as the seed's kind of answer is read."""
    found, value = read_answer(generation.text, expected_of(seed), generation.finish)
    return value if found is Extraction.VALUE else None


def answer_sentence(value: str, like: str) -> str:
    """A statement of the answer in the language of `like`."""
    return f"答案是{value}。" if _HAN.search(like) else f"The answer is {value}."
