"""Numbers as people and models write them: "$1,234.50", "½", "十二", "twelve", "\\frac{1}{2}".

`answers.py` decides *which* number is the answer; this file only knows what a number looks like.
"""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from pipeline.stage3_evaluate.markup import strip_markup
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN, SCALE, leading_words

MASK = "\ue002"  # stands for a digit of a date, a time, an ordinal: no quantity

_LONGEST = 40  # digits; more is a model stuck on one key, not a number


class Found(NamedTuple):
    """A number in a text: character offsets and its canonical form."""

    start: int
    end: int
    text: str


_GROUPS = re.compile(r"(?<!\d)[1-9]\d{0,2}([ \u00a0\u2009\u202f'’_])\d{3}(?:\1\d{3})*(?!\d)")


def clean(text: str, *, cut: bool) -> str:
    """`strip_markup`, then plain forms for LaTeX, then masks over what is no quantity."""
    text = strip_markup(text, cut=cut)
    text = re.sub(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", _box, text)
    text = _FRACTION.sub(_fraction, text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text)
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}", r" \1 ", text)
    text = (
        text.replace("{,}", ",").replace("\\times", "×").replace("\\cdot", "·").replace("\\pm", "±")
    )
    text = re.sub(r"(?<=\d)\\(?:[,!;](?=\d)| (?=\d{3}(?!\d)))", "", text)
    text = re.sub(r"\\([$%#&,!;:])", lambda match: match[1] if match[1] in "$%#" else " ", text)
    text = re.sub(r"\\[()\[\]]|\$\$|\\(?:quad|left|right|approx|implies|Rightarrow)\b", " ", text)
    # The dot of an abbreviation ends no sentence.
    text = re.sub(r"\b(i\.e|e\.g|Mrs?|Ms|Dr|vs|approx)\.", r"\1", text, flags=re.IGNORECASE)
    text = _plain_forms(_GROUPS.sub(_join_groups, text))
    return _NO_QUANTITY.sub(_hide, text)


_FRACTION = re.compile(r"(-\s*)?\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")


def _fraction(match: re.Match[str]) -> str:
    """The space keeps the whole of "2\\frac{1}{2}" apart; a sign must touch its number."""
    sign = "-" if match[1] else " "
    return f"{sign}{match[2] or match[4]}/{match[3] or match[5]}"


_TIMES_TEN = re.compile(
    r"(?<![\w.])(\d{1,20}(?:\.\d{1,20})?)\s?[×x*·]\s?10\s?\^\s?\{?\s?([+-]?\d{1,2})(?!\d)\s?\}?"
)
_POWER_OF_TEN = re.compile(r"(?<![\w.^{}×·*])(?<![×·*]\s)10\^\{?(-?\d{1,2})(?![\d^])\}?")
_CENTS = re.compile(
    r"(?<![\d.,])(?:\$\s?(\d{1,9})|(\d{1,9})\s+dollars?),?\s+(?:and\s+)?(\d{1,2})\s+cents?\b",
    re.IGNORECASE,
)
_EURO_AFTER = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3}){1,4}|\d{1,9}),(\d\d)(?=\s?(?:€|EUR\b|euros?\b))"
)
_EURO_BEFORE = re.compile(r"€\s?(\d{1,3}(?:\.\d{3}){1,4}|\d{1,9}),(\d\d)(?![\d,])")
_SHORT_SCALE = re.compile(
    r"(?<=[$€£])(\d{1,9}(?:\.\d{1,6})?)(k|M|mn|B|bn)\b(?!\s?[$=+*/^-])", re.IGNORECASE
)
_SHORT = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}

_UNIT_POWER = re.compile(
    r"(\d\s?(?:[cdkm]?m|ft|in|yd|mi|inches|feet|meters?|metres?))\s?\^\s?\{?[23]\}?"
)


def _plain_forms(text: str) -> str:
    """Decimals for "3 × 10^4", "12 dollars and 50 cents", "€12,50", "$1.2M", "3元5角", "3分之2"."""
    text = _POWER_OF_TEN.sub(r"1e\1", _TIMES_TEN.sub(r"\1e\2", text))
    text = _CENTS.sub(lambda match: f"${match[1] or match[2]}.{match[3]:0>2}", text)
    for euros in (_EURO_AFTER, _EURO_BEFORE):
        text = euros.sub(lambda match: f"{match[1].replace('.', '')}.{match[2]}", text)
    text = _SHORT_SCALE.sub(lambda match: f"{match[1]} {_SHORT[match[2].casefold()]}", text)
    text = _UNIT_POWER.sub(r"\1", text)
    text = re.sub(r"(?<![\d.])(\d{1,9})元(\d)角(?:(\d)分)?", r"\1.\2\3元", text)
    text = re.sub(r"百分之(?=-?\d)", "", text)
    text = re.sub(r"(?<![\d.])(\d{1,9})分之(\d{1,9})(?![\d.])", r"\2/\1", text)
    return re.sub(r"(?<![\d.])(\d{1,9})个半(?!个)", r"\1.5个", text)


def _join_groups(match: re.Match[str]) -> str:
    """One number of "1 000 000"; two numbers stay two: "day 1 200 people", "10 20 300"."""
    joined = re.sub(r"[^\d]", "", match.group())
    if match[1] != " ":
        return joined
    before = match.string[max(0, match.start() - 20) : match.start()]
    after = match.string[match.end() : match.end() + 20]
    groups = match.group().split(" ")
    if _NO_GROUP_BEFORE.search(before) or _NO_GROUP_AFTER.match(after):
        return match.group()
    if len(groups) == 2 and (re.search(r"\d[,;]\s?$", before) or re.match(r"[,;]\s?\d", after)):
        return match.group()
    rounded = all(group[0] != "0" and group[-1] == "0" for group in groups)
    if len(groups) > 2 and len(groups[0]) == 3 and rounded:
        return match.group()  # "100 200 300"
    return joined


def _box(match: re.Match[str]) -> str:
    return f"{BOX_OPEN}{match.group(1)}{BOX_CLOSE}"


def _hide(match: re.Match[str]) -> str:
    return re.sub(r"\d", MASK, match.group())


_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_NO_GROUP_BEFORE = re.compile(
    r"\d\s$|[.:/^]$|\b(?:day|step|question|problem|case|option|room|page|chapter|grade|year|round"
    rf"|week|team|group|level|part|figure|table|no\.|{_MONTH})\.?\s?#?$",
    re.IGNORECASE,
)
_NO_GROUP_AFTER = re.compile(
    r"\s\d|[/:^]\d|-[A-Za-z]"
    r"|\s?(?:ml|g|kg|mm|cm|l|w)\s(?:bottle|bag|can|pack|box|jar|piece|stick|bulb|carton)",
    re.IGNORECASE,
)
_NO_QUANTITY = re.compile(
    r"(?<![\d.])\d{1,2}:\d{2}(?::\d{2})?(?![\d])"  # 3:30
    r"|(?<![\d.])\d{1,2}\s*(?:a\.?m|p\.?m)\b\.?"  # 3 pm
    r"|(?<!\d)\d{4}-\d{1,2}-\d{1,2}(?!\d)|(?<![\d/])\d{1,2}/\d{1,2}/\d{2,4}(?![\d/])"
    r"|\d{4}年\d{1,2}月(?:\d{1,2}[日号])?|(?<!\d)\d{1,2}月\d{1,2}[日号]|\d{1,2}点(?:\d{1,2}分|钟?整)"
    rf"|\b{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}\b(?:,?\s+\d{{4}})?"
    r"|(?<![\d.,])\d+(?:st|nd|rd|th)\b"  # 12th
    r"|(?<![\d.])\d+(?:\.\d+){2,}(?![\d])",  # 1.2.3
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"\b(?:step|question|problem|example|option|case|part|figure|table|chapter|page|no\.|day)\s*#?"
    r"\d+|第\s*\d+\s*[步题页章节个天]?|步骤\s*\d+"
    r"|^[ \t]*\(?\d{1,2}[.)、][ \t]+(?=\S)"
    r"|(?<!\d)\d{1,2}\s(?:decimal|significant)\b|保留\d位|\bnearest\s\$?\d{1,6}\b",
    re.IGNORECASE | re.MULTILINE,
)


def mask_labels(text: str) -> str:
    """Hide digits that only count paragraphs: "Step 3", "第2步", a list's "4. "."""
    return _LABELLED.sub(_hide, text)


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+)"
_TOKEN = re.compile(
    rf"(?P<sign>[-+])?(?:[$€£¥]|US\$|Rs\.?\s?)?\s?(?P<inner>-)?"
    rf"(?:(?P<whole>\d+)\s+(?P<mixed>\d+/[1-9]\d*)(?![\d/])"
    rf"|(?P<top>\d+)\s?/\s?(?P<bottom>\d*[1-9]\d*)(?![\d/.])"
    rf"|(?P<plain>{_DIGITS}(?:\.\d+)?(?:[eE][+-]?\d{{1,2}}(?!\d))?|\.\d+))"
    r"(?P<scale>\s?(?:thousand|million|billion|trillion|hundred|dozen|lakh|crore)\b|\s?[万亿千百](?![分一二三克米瓦卡]))?",
    re.IGNORECASE,
)
# Units may touch a number ("12kg"); a letter before it ("B12") or a lone variable ("3x") may not.
_VARIABLE = re.compile(r"[xyzn](?![A-Za-z])")


def find(text: str) -> list[Found]:
    """Every quantity in a cleaned text, left to right."""
    found: list[Found] = []
    position, larger = 0, Fraction(0)  # the scale of a Chinese number that ends just here
    while match := _TOKEN.search(text, position):
        position = match.end()
        start = match.start()
        before = text[start - 1] if start else ""
        body = match.group().lstrip("+-$€£¥ ")
        if len(re.sub(r"\D", "", body)) > _LONGEST or (
            before == MASK and not match.group()[0].isspace()
        ):
            continue
        if before == "." and match["plain"] and text[start - 2 : start - 1].isdigit():
            continue
        if before.isascii() and (before.isalpha() or before == "_") and match.group()[0].isdigit():
            continue
        if _VARIABLE.match(text, match.end()):
            continue
        value = _value(match)
        scale = (match["scale"] or "").strip()
        if found and found[-1].end == start and text[start].isdigit() and value < larger:
            value += Fraction(found[-1].text)  # 3万5千
            start = found.pop().start
        elif _is_sign(text, match):
            value = -value
        larger = (
            Fraction(SCALE[scale]) if scale and scale in "万亿千" and value > 0 else Fraction(0)
        )
        if match.group()[1:2].isspace() and match["sign"]:
            start += 2  # the "-" is a bullet or an operator
        found.append(Found(start, match.end(), canonical(value)))
    return found


_NEGATIVE = re.compile(r"\b(?:negative|minus)\s*$|(?:负|零下)\s*$", re.IGNORECASE)


def _is_sign(text: str, match: re.Match[str]) -> bool:
    """Whether the token's "-" means negative: not in "10-3", "10 - 3", "COVID-19", "- item"."""
    if match["inner"]:
        return True
    if match["sign"] != "-":
        return bool(_NEGATIVE.search(text[max(0, match.start() - 12) : match.start()]))
    if text[match.start() + 1 : match.start() + 2].isspace():
        return False
    before = text[max(0, match.start() - 4) : match.start()]
    if before[-1:].isalnum() or before[-1:] in (")", "%"):
        return False
    return not re.search(r"[\d)%]\s+$", before)


def _value(match: re.Match[str]) -> Fraction:
    if match["mixed"]:
        value = Fraction(match["whole"]) + Fraction(match["mixed"])
    elif match["top"]:
        value = Fraction(int(match["top"]), int(match["bottom"]))
    else:
        value = Fraction(match["plain"].replace(",", ""))
    scale = (match["scale"] or "").strip().casefold()
    return value * SCALE[scale] if scale else value


def canonical(value: Fraction) -> str:
    """ "12", "-3.5", or "p/q" where no finite decimal exists."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def parse(text: str) -> Fraction | None:
    """The one number that `text` is, units and currency allowed; None when it is not one."""
    plain = clean(text, cut=False)
    worded = leading_words(plain)
    if worded is not None:
        return worded[0]
    numbers = find(plain)
    return Fraction(numbers[0].text) if len(numbers) == 1 and is_bare(plain) else None


_BARE = re.compile(r"\W*(?:[A-Za-z°²³]{1,15}(?:\s+[A-Za-z]{1,15})?|[\u4e00-\u9fff]{1,4})?\W*")


def is_bare(line: str) -> bool:
    """Whether a line is one number and at most a unit: "12", "$12.00.", "12 apples", "12元"."""
    numbers = find(line)
    if len(numbers) != 1 or MASK in line:
        return False
    before, after = line[: numbers[0].start], line[numbers[0].end :]
    if re.search(r"[^\W_]|[\\^+*/=]|[-•]\s*$", before) or re.match(r"[.)]\s+\S", after):
        return False
    return _BARE.fullmatch(after) is not None and not re.search(r"[+*/=×÷^\\]", after)


_VERIFY = """
import logging, sys
logging.disable(logging.CRITICAL)
from math_verify import parse, verify
gold, answer = (parse("$" + text.strip("$ ") + "$") for text in sys.argv[1:3])
print("equal" if gold and answer and verify(gold, answer) else "different")
"""


@lru_cache(maxsize=4096)
def latex_equal(a: str, b: str) -> bool:
    """math-verify's opinion; False also when one side cannot be read or time ran out."""
    if max(len(a), len(b)) > 300 or "\0" in a + b:
        return False
    command = [sys.executable, "-c", _VERIFY, a, b]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip() == "equal"
