"""Numbers in words, English and Chinese; read only where an answer is stated outright."""

from __future__ import annotations

import re
from fractions import Fraction

BOX_OPEN, BOX_CLOSE = "\ue000", "\ue001"  # stand for \boxed{ and }

SCALE = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12, "lakh": 10**5, "crore": 10**7, "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
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
_SCALE_WORDS = [word for word in SCALE if word.isascii()]
_WORD = "|".join([*_SMALL, *_TENS, *_SCALE_WORDS])
_PARTS = {"hal": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8,
          "tenth": 10}  # fmt: skip
_PART = r"(?:hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|eighth|tenth)s?)\b"
# Atomic: "twenty one more" must not give back "one" and be read as twenty.
_ENGLISH = re.compile(
    rf"(?>(?P<half>half\s+an?\b(?:\s+(?P<of>{'|'.join(_SCALE_WORDS)})\b)?)"
    rf"|(?P<words>(?:a|{_WORD})\b"
    rf"(?:[\s-]+(?:(?<=(?:dred|sand|lion)\s)and\s+)?(?:{_WORD})\b)*)"
    rf"(?:\s+point(?P<places>(?:[\s-]+(?:{'|'.join(list(_SMALL)[:10])})\b)+)"
    rf"|\s+and\s+(?P<more>a|{'|'.join(list(_SMALL)[1:10])})[\s-]+(?P<part>{_PART})"
    rf"|[\s-]+(?P<share>{_PART}))?)"
    r"(?!\s+(?:of(?!\s+an?\b)|times|plus|minus|more|less|fewer|is|can)\b)(?!\s+and\s+a\b)",
    re.IGNORECASE,
)
_C = "零〇一二两三四五六七八九十百千万亿"
_CHINESE = re.compile(
    rf"(?>(?:(?P<bottom>[{_C}]+)分之)?(?P<whole>[{_C}]+)(?:点(?P<places>[{_C[:11]}]+)(?!分))?)"
    r"(?P<half>[个年天倍]半)?(?![些样般定起旦方面点共下直切半])(?!分之)"
)
_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}


def leading_words(sentence: str) -> tuple[Fraction, int] | None:
    """The number that a statement starts with in words, and the offset where it ends."""
    lead = _LEAD.match(sentence)
    begin = lead.end() if lead else 0
    sign = -1 if lead and lead["minus"] else 1
    if match := _ENGLISH.match(sentence, begin):
        value = _english_quantity(match)
    elif match := _CHINESE.match(sentence, begin):
        value = _chinese_quantity(match)
    else:
        return None
    return None if value is None else (sign * value, match.end())


def _english_quantity(match: re.Match[str]) -> Fraction | None:
    """ "twelve", "two thirds", "two and a half", "twelve point five", "half a dozen"."""
    if match["half"]:
        return Fraction(SCALE[match["of"].casefold()] if match["of"] else 1, 2)
    words = [word for word in re.split(r"[\s-]+", match["words"].casefold()) if word != "and"]
    value = _english(words)
    if match["share"]:
        value = 1 if words == ["a"] else value
        plural = match["share"].casefold().endswith("s")
        if value is None or value > 19 or (value != 1) != plural:
            return None  # "twenty third" is an ordinal
        return Fraction(value, _part(match["share"]))
    if value is None:
        return None
    if match["places"]:
        digits = "".join(str(_SMALL[w]) for w in re.findall(r"[a-z]+", match["places"].casefold()))
        return value + Fraction(int(digits), 10 ** len(digits)) if len(digits) < 20 else None
    if match["part"]:
        return value + Fraction(_SMALL.get(match["more"].casefold(), 1), _part(match["part"]))
    return Fraction(value)


def _part(word: str) -> int:
    return next(n for name, n in _PARTS.items() if word.casefold().startswith(name))


def _english(words: list[str]) -> int | None:
    total = current = 0
    if words == ["a"]:
        return None
    ones = tens = False  # filled already: "five six" is two numbers, not eleven
    for word in words:
        if word in _SMALL or word in _TENS:
            if ones or (tens and _SMALL.get(word, 10) > 9):
                return None
            ones, tens = word in _SMALL, word in _TENS
            current += _SMALL.get(word, 0) + _TENS.get(word, 0)
            continue
        ones = tens = False
        if word == "a":
            current = 1
        elif SCALE[word] < 1000:
            current = max(current, 1) * SCALE[word]
        else:
            total, current = total + max(current, 1) * SCALE[word], 0
    return total + current


def _chinese_quantity(match: re.Match[str]) -> Fraction | None:
    """ "十二", "三分之二", "百分之二十" (a percentage is its number), "十二点五", "两个半"."""
    value = Fraction(_chinese(match["whole"]))
    if match["places"]:
        digits = "".join(str(_CHINESE_DIGITS[character]) for character in match["places"])
        if len(digits) > 20:
            return None
        value += Fraction(int(digits), 10 ** len(digits))
    if match["bottom"] and match["bottom"] != "百":
        bottom = _chinese(match["bottom"])
        return value / bottom if bottom else None
    return value + Fraction(1, 2) if match["half"] else value


def _chinese(text: str) -> int:
    if 1 < len(text) < 20 and all(character in _CHINESE_DIGITS for character in text):
        return int("".join(str(_CHINESE_DIGITS[character]) for character in text))  # 二〇二四
    total = section = digit = last = 0
    for character in text:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
            last = last if digit else 0
        elif character in "十百千":
            last = {"十": 10, "百": 100, "千": 1000}[character]
            section += max(digit, 1) * last
            digit = 0
        else:
            last = SCALE[character]
            part = section + digit
            # 一亿五千万: the 万 scales only what follows the 亿; 一万亿 scales all of it.
            total = total + part * last if total > last else (total + part) * last
            section = digit = 0
    return total + section + digit * max(last // 10, 1)  # 三百五 is 350, 三百零五 is 305
