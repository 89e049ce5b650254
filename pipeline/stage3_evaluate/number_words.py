"""Numbers in words, English and Chinese; read only where an answer is stated outright."""

from __future__ import annotations

import re
from fractions import Fraction

BOX_OPEN, BOX_CLOSE = "\ue000", "\ue001"  # stand for \boxed{ and }

SCALE = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12, "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen"
)
_TO_NINETY = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: number for number, word in enumerate(_TO_NINETEEN.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TO_NINETY.split(), start=2)}
_LEAD = re.compile(
    r"(?:[\s:$\ue000\"'(-]|\b(?:about|approximately|exactly|only|just|simply|equal to|a total of"
    r"|that|there|are|is|therefore|then|now)\b|大?约|[一总]?共有?|正好)*(?P<minus>(?:minus|negative)\s+|负)?",
    re.IGNORECASE,
)
_ENGLISH = re.compile(
    r"(?:(?:a|{0})\b(?:[\s-]+(?:and\s+)?(?:{0})\b)*)(?!\s+(?:of|times|plus|minus|more|less|is|can)\b)"
    r"(?!\s+and\s+a\b)".format("|".join([*_SMALL, *_TENS, *list(SCALE)[:6]])),
    re.IGNORECASE,
)
_CHINESE = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+(?![些样般定起旦方面点共下直切])")
_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}


def leading_words(sentence: str) -> tuple[Fraction, int] | None:
    """The number that a statement starts with in words, and the offset where it ends."""
    lead = _LEAD.match(sentence)
    begin = lead.end() if lead else 0
    sign = -1 if lead and lead["minus"] else 1
    if match := _ENGLISH.match(sentence, begin):
        words = [word for word in re.split(r"[\s-]+", match.group().casefold()) if word != "and"]
        value = _english(words)
    elif match := _CHINESE.match(sentence, begin):
        value = _chinese(match.group())
    else:
        return None
    return None if value is None else (Fraction(sign * value), match.end())


def _english(words: list[str]) -> int | None:
    total = current = 0
    if words == ["a"]:
        return None
    for word in words:
        if word in _SMALL or word in _TENS:
            current += _SMALL.get(word, 0) + _TENS.get(word, 0)
        elif word == "a":
            current = 1
        elif SCALE[word] < 1000:
            current = max(current, 1) * SCALE[word]
        else:
            total, current = total + max(current, 1) * SCALE[word], 0
    return total + current


def _chinese(text: str) -> int | None:
    total = section = digit = 0
    for character in text:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        elif character in "十百千":
            section += max(digit, 1) * {"十": 10, "百": 100, "千": 1000}[character]
            digit = 0
        else:
            total = (total + section + digit) * SCALE[character]
            section = digit = 0
    return total + section + digit
