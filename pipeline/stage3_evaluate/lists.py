"""Which list of whole numbers an answer gives, for in-context tasks whose answer is a list.

A list is "[3, 1]", "(3, 1)" or "{3, 1}" with commas, semicolons or spaces, or numbers alone on
their line: "3, 1", "3 1", "3 and 1", "7". An empty one is "[]" or "empty list". Read are, in order:

1. the last list that a statement names ("Output: [3, 1]", "the answer is 3, 1", "-> [3, 1]");
2. the first line that is a list and nothing else;
3. the one list of the text, where there are not two different ones.

What follows an invented next example ("Input: ..." after an answer) does not count, nor does a line
that repeats an input. A cut text counts by 1 and 2 alone, and only where the list is closed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.markup import strip_markup

_NUMBER = r"-?\d{1,18}(?:\.0)?"
_SEPARATOR = r"(?:\s*[,;、]\s*(?:and\s+)?|\s+(?:and\s+)?)"
_NUMBERS = rf"{_NUMBER}(?:{_SEPARATOR}{_NUMBER})*"
_EMPTY = r"(?:(?:an\s+)?empty(?:\s+list)?|空列表|空)"
_BRACKETS = re.compile(
    rf"\[\s*(?P<square>(?:{_NUMBERS}\s*,?\s*)?)\]"
    rf"|\((?P<round>{_NUMBER}(?:\s*[,;]\s*{_NUMBER})+)\)|\{{\s*(?P<curly>{_NUMBERS})\s*\}}"
)
_ALONE = re.compile(rf"\W*?(?P<bare>{_NUMBERS}|{_EMPTY})\s*[.。]?", re.IGNORECASE)
_MARKER = re.compile(
    r"(?:\b(?:output|answer|result|label|becomes|gives|returns)\b"
    r"(?:[^\n\[(\d]{0,40}?(?:\bis\b|\bare\b|\bbe\b|[:=]))?"
    r"|输出|答案|结果|得到|->|=>|→)(?:\s|是|为|[:=\"'])*",
    re.IGNORECASE,
)
_INPUT = re.compile(r"\s*(?:\W*(?:next|new|another)\s+)?(?:input|question|query|输入|问题)\b", re.I)


class _Found(NamedTuple):
    value: str
    end: int  # in its line
    closed: bool  # by a bracket: nothing can follow


def extract_list(text: str, finish: Finish) -> tuple[Extraction, str | None]:
    """The list of an answer as "[3, 1]", by the rules above."""
    if finish is Finish.ERROR:
        return Extraction.NO_ANSWER, None
    cut = finish is Finish.LENGTH
    clean = strip_markup(text, cut=cut).strip()
    stated: str | None = None
    alone: str | None = None
    seen: list[str] = []
    lines = clean.splitlines()
    for number, line in enumerate(lines):
        echo = _INPUT.match(line)
        if echo and (stated or alone):
            break
        may_go_on = cut and number == len(lines) - 1
        named = _stated(line)
        whole = None if echo else _whole(line)
        if named and not (may_go_on and not named.closed and named.end == len(line)):
            stated = named.value
        if whole and alone is None and not (may_go_on and not whole.closed):
            alone = whole.value
        if not echo:
            seen += [_canonical(_inside(found)) for found in _BRACKETS.finditer(line)]
    if stated or alone:
        return Extraction.VALUE, stated or alone
    if cut:
        return Extraction.TRUNCATED, None
    if len(set(seen)) == 1:
        return Extraction.VALUE, seen[0]
    return Extraction.NO_ANSWER, None


def same_list(a: str, b: str) -> bool:
    """Whether two lists have equal elements in one order; what is no list equals nothing."""
    left, right = _whole(a), _whole(b)
    return left is not None and right is not None and left.value == right.value


def _stated(line: str) -> _Found | None:
    """The list right behind the line's last marker that has one."""
    for marker in reversed(list(_MARKER.finditer(line))):
        if found := _at(line, marker.end()):
            return found
    return None


def _whole(line: str) -> _Found | None:
    """The list that a line consists of, but for quotation marks, bullets and a full stop."""
    start = re.match(r"[\s\"'*•]*(?:-\s)?", line)
    found = _at(line, start.end() if start else 0)
    if found is None or re.sub(r"[\s\"'.。*]", "", line[found.end :]):
        return None
    return found


def _at(line: str, place: int) -> _Found | None:
    """A list that begins at `place`; one without brackets must go on to the line's end."""
    if found := _BRACKETS.match(line, place):
        return _Found(_canonical(_inside(found)), found.end(), True)
    if bare := _ALONE.fullmatch(line, place):
        return _Found(_canonical(bare["bare"]), len(line), False)
    return None


def _inside(found: re.Match[str]) -> str:
    return found["square"] or found["round"] or found["curly"] or ""


def _canonical(inside: str) -> str:
    numbers = re.findall(r"-?\d+(?=\.0|\D|$)", re.sub(r"\.0\b", "", inside))
    return f"[{', '.join(str(int(number)) for number in numbers)}]"
