"""What an answer states beside its number: `unit`, and `one_answer` where it states two.

The number itself is the filter `answer`'s (correctness.py): an answer of "35 hours" to a question
for minutes has the right number all the same.
"""

from __future__ import annotations

import re

from pipeline.records import Extraction, Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.answers import extract_number, numbers_equal
from pipeline.stage3_evaluate.number_words import BOX_CLOSE

NEAR = 24  # characters after a number in which its unit stands
MOST_STATEMENTS = 20  # more is a loop, for `repetition`

# quantity -> unit -> what it is called. A word that is also something else ("second", "foot",
# "quarter") counts only right after a number.
_UNITS: dict[str, dict[str, tuple[str, ...]]] = {
    "time": {
        "second": ("s", "sec", "secs", "second", "seconds", "秒", "秒钟"),
        "minute": ("min", "mins", "minute", "minutes", "分钟"),
        "hour": ("h", "hr", "hrs", "hour", "hours", "小时", "个小时"),
        "day": ("day", "days", "天"),
        "week": ("week", "weeks", "周", "星期", "个星期"),
        "month": ("month", "months", "个月"),
        "year": ("year", "years", "年"),
    },
    "length": {
        "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "毫米"),
        "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres", "厘米"),
        "m": ("m", "meter", "meters", "metre", "metres", "米"),
        "km": ("km", "kilometer", "kilometers", "kilometre", "kilometres", "千米", "公里"),
        "inch": ("inch", "inches", "英寸"),  # "in" is a word of its own
        "foot": ("ft", "foot", "feet", "英尺"),
        "yard": ("yd", "yard", "yards", "码"),
        "mile": ("mi", "mile", "miles", "英里"),
    },
    "mass": {
        "mg": ("mg", "milligram", "milligrams", "毫克"),
        "g": ("g", "gram", "grams", "克"),
        "kg": ("kg", "kilo", "kilos", "kilogram", "kilograms", "千克", "公斤"),
        "tonne": ("ton", "tons", "tonne", "tonnes", "吨"),
        "ounce": ("oz", "ounce", "ounces", "盎司"),
        "pound": ("lb", "lbs", "磅"),  # "pounds" is money as well
    },
    "volume": {
        "ml": ("ml", "milliliter", "milliliters", "millilitre", "millilitres", "毫升"),
        "l": ("l", "liter", "liters", "litre", "litres", "升"),
        "gallon": ("gal", "gallon", "gallons", "加仑"),
    },
    "money": {
        "dollar": ("$", "usd", "dollar", "dollars", "美元"),
        "cent": ("¢", "cent", "cents", "美分"),
        "euro": ("€", "eur", "euro", "euros", "欧元"),
        "pound sterling": ("£", "gbp", "英镑"),
        "yuan": ("¥", "￥", "rmb", "cny", "yuan", "元", "块", "块钱", "人民币"),
        "jiao": ("角", "毛"),
        "fen": ("分钱",),
    },
    "temperature": {
        "°C": ("°c", "℃", "celsius", "摄氏度"),
        "°F": ("°f", "℉", "fahrenheit", "华氏度"),
    },
    "share": {"%": ("%", "percent", "per cent", "％")},
}
_CALLED = {
    name: (unit, quantity)
    for quantity, units in _UNITS.items()
    for unit, names in units.items()
    for name in names
}
_SPOKEN = sorted((n for n in _CALLED if len(n) > 2 and n.isalpha()), key=len, reverse=True)
_ENGLISH = "|".join(name for name in _SPOKEN if name.isascii())
_CHINESE = "|".join(name for name in _CALLED if name.isalpha() and not name.isascii())
_NAMES = "|".join(map(re.escape, sorted(_CALLED, key=len, reverse=True)))
# "35 km per hour" and "35 km/h" are neither kilometres nor hours.
_AFTER = re.compile(
    rf"[\s{BOX_CLOSE})-]{{0,6}}(?P<unit>{_NAMES})(?![a-z])"
    r"(?!\s?(?:/|per\b|每)|\s(?:an?|each)\s(?:second|minute|hour|day|week|month|year)\b)",
    re.IGNORECASE,
)
_MONEY_BEFORE = re.compile(r"([$€£¥￥])\s*$")
_ASKED = re.compile(
    rf"\b(?:how\smany\s(?:\w+\s)?|number\sof\s|in\s)(?P<english>{_ENGLISH})\b"
    rf"|(?:多少|几)个?(?P<chinese>{_CHINESE})",
    re.IGNORECASE,
)
_HOW_MUCH = re.compile(r"\bhow much\b", re.IGNORECASE)
_DOLLARS = re.compile(r"\$|\bdollars?\b", re.IGNORECASE)
_OTHER_MONEY = re.compile(
    r"[€£¥￥¢]|\b(?:cents?|euros?|pounds?|yuan|dimes?|nickels?|quarters?)\b", re.I
)


def unit() -> Filter:
    """Drop answers whose final number stands with another unit than the one asked for.

    The unit asked for is the seed's field `unit`, what follows the number of its reference ("35
    minutes"), or what its question asks for ("How many minutes", "in dollars", "多少分钟"). A
    number without a unit, and things that are counted (apples), are kept.
    """

    def check(row: Candidate) -> Verdict:
        wanted = _wanted_unit(row)
        if wanted is None:
            return keep("unit")
        found, value = extract_number(row.generation.text, row.generation.finish)
        if found is not Extraction.VALUE or value is None:
            return keep("unit")  # the filter `answer` has a better word for it
        stated = _units_of(numerals.clean(row.generation.text, cut=False), value)
        if stated and wanted not in stated:
            return drop("unit", f"asked for {wanted}, stated: {stated[-1]}")
        return keep("unit")

    return check


def _wanted_unit(row: Candidate) -> str | None:
    given = row.seed.fields.get("unit")
    if isinstance(given, str):
        return _CALLED.get(given.strip().lower(), (given.strip().lower(), ""))[0]
    reference = row.seed.reference or ""
    for number in numerals.find(reference)[-1:]:
        if stated := _unit_at(reference, number):
            return stated
    question = str(row.seed.fields.get("question", ""))
    asked = list(_ASKED.finditer(question))
    if asked:
        return _CALLED[(asked[-1]["english"] or asked[-1]["chinese"]).lower()][0]
    if _HOW_MUCH.search(question) and _DOLLARS.search(question):
        return None if _OTHER_MONEY.search(question) else "dollar"
    return None


def _units_of(text: str, value: str) -> list[str]:
    """The units of `value` where it is stated last, or, bare there, where it was worked out.

    The same number may stand in the story with a unit of its own: "In 4 days, ... The answer is 4."
    """
    last = True
    for sentence in reversed(re.split(r"(?<=[.!?])\s+|\n", text)):
        equal = [n for n in numerals.find(sentence) if numbers_equal(n.text, value)]
        if not last:
            equal = [n for n in equal if re.search(r"=\s*[$€£¥]?$", sentence[: n.start])]
        if units := [unit for n in equal if (unit := _unit_at(sentence, n))]:
            return units
        last = last and not equal
    return []


def _unit_at(text: str, number: numerals.Found) -> str | None:
    """The unit that stands right before (money) or after a number."""
    sign = _MONEY_BEFORE.search(text[max(0, number.start - 3) : number.start])
    if sign or text[number.start] in "$€£¥":
        return _CALLED[sign[1] if sign else text[number.start]][0]
    after = _AFTER.match(text, number.end, number.end + NEAR)
    return _CALLED[after["unit"].lower()][0] if after else None


_STATES = re.compile(
    r"\banswer\s(?:is|equals|would\sbe)\b|\banswer\s?:|####|\\boxed\s*\{|答案[是为：:]",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correct(?:ion|ed|ing)?|hold\son|mistake|let\sme|re-?check|instead|not|wrong"
    r"|approximately|about|rounded)\b|不对|更正|等等|重新|错|约",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r"\((?:[a-z]|[ivx]+|\d)\)|\b(?:part|first|second|third|questions?|problem|both|respectively|step"
    r"|intermediate|sub\w*)\b|第[一二三四\d]",
    re.IGNORECASE,
)


def one_answer() -> Filter:
    """Drop answers that state two different numbers as the answer and take neither back.

    "The answer is 5. ... The answer is 6." teaches nothing, whichever is right. Statements about
    parts of a question, and what follows a "Wait" or a correction, are no contradiction.
    """

    def check(row: Candidate) -> Verdict:
        text = row.generation.text
        marks = list(_STATES.finditer(text))
        if not 2 <= len(marks) <= MOST_STATEMENTS or _PARTS.search(text):
            return keep("one_answer")
        stated: tuple[str, int] | None = None
        for mark in marks:
            ends = re.compile(r"[\n。]|[.!?](?:\s|$)").search(text, mark.end())
            end = ends.end() if ends else len(text)
            found, value = extract_number(text[mark.start() : end], Finish.STOP)
            if found is not Extraction.VALUE or value is None:
                continue
            taken_back = stated and _TAKEN_BACK.search(text, stated[1], mark.start())
            if stated and not taken_back and not numbers_equal(stated[0], value):
                return drop("one_answer", f"two answers: {stated[0]} and {value}")
            stated = (value, mark.start())
        return keep("one_answer")

    return check
