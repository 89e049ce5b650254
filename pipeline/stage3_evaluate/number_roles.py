"""What a number in a sentence is there for: not every one of them is what the sentence states."""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction

from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.number_words import leading_words

OPERATOR = re.compile(
    r"\^\{?-?\d|:\d"
    r"|\s*(?:[A-Za-z]{1,15}\s*)?"
    r"(?:[+*/×÷·]|-\s|-(?=\d)|x\s"
    r"|(?:times|plus|minus|multiplied by|divided by|(?:more|less|fewer) than)\s)"
    r"\s*\(?[$¥€£]?\d"
)
_SHARE = re.compile(
    r"\s?(?:%|per\s?cent)?\s?of\s(?:the\s)?\(?[$¥€£]?\d|[%个元]?的\d", re.IGNORECASE
)
COMPARES = re.compile(
    r"\s?%?\s?(?:[A-Za-z]{1,15}\s){0,2}(?:(?:more|less|fewer|greater|higher|lower|larger|older"
    r"|younger|longer|shorter)\b|times (?:as|the|what|that)\b|of (?:whom|which|them|these)\b)",
    re.IGNORECASE,
)
_DOING = re.compile(
    r"\b(?:after|before|by|from|without)\s+[a-z]{2,12}ing(?:\s+[a-z]{1,12}){0,3}\s*[$€£]?$"
    r"|\d\s+(?:[a-z]{1,12}\s+)?(?:more|less|fewer) than\s*[$€£]?$"
    r"|\d\s+(?:out )?of (?:the|his|her|their|its|my|our|these|those|all)\s*$",
    re.IGNORECASE,
)
_APPOSED = re.compile(r"(?:,|\b(?:which|that) (?:is|are|was))\s*$", re.IGNORECASE)

# Between two neighbouring numbers, each on at most 40 characters.
_UNIT = r"\s*(?P<unit>%|[A-Za-z°]{1,15}|[\u4e00-\u9fff]{1,3}?)?\s*"
_OR = re.compile(
    rf"{_UNIT}(?P<comma>,\s*)?(?:\bor\b|或者?|还是)\s*(?P<maybe>maybe|perhaps|possibly|even|可能)?[\s(]*",
    re.IGNORECASE,
)
_TO = re.compile(rf"{_UNIT}(?:\bto\b|[~～至到]|-)\s*", re.IGNORECASE)
_LIST = re.compile(rf"{_UNIT},\s*", re.IGNORECASE)
_AND = re.compile(rf"{_UNIT}(?:,\s*)?(?:and|to|by|from|[到至和与])?\s*(?:the\s)?", re.IGNORECASE)
# Right before a number.
_RANGE_OPENS = re.compile(r"(?:\b(?:between|from)|从|在)\s*$", re.IGNORECASE)
_OPERANDS_OPEN = re.compile(
    r"\b(?:sum|product|difference|average|mean|quotient|ratio)\s+(?:of|between)\s*(?:the\s)?$"
    r"|[\s和与]*的?(?:和|差|积)是$",
    re.IGNORECASE,
)
_OPERAND_OPENS = re.compile(
    r"(?:\b(?:half|twice|double|triple)(?:\s+of)?"
    r"|\b(?:half|thirds?|quarters?|fourths?|fifths?) of(?:\sthe)?"
    r"|(?<!no )\b(?:more|less|fewer|greater|higher|older|younger) than"
    r"|\b(?:times|plus|multiplied by|divided by))\s*$|比$",
    re.IGNORECASE,
)
# Says when or how, not how many: "Answer: After 3 days, he has 12".
_SETTING = re.compile(
    r"^\W*(?:(?:so|that|then|therefore)\W+)?(?:after|in|for|on|at|with|within|over|during|if|when|since"
    r"|given|out of|by|because)\b(?:[^,]|,(?=\d)){0,100},(?!\d)(?!\s*(?:which|or|that|i\.?e)\b)"
    r"|\d\s*(?:天|年|个月|小时|分钟|周|个星期|次|秒)(?:以|之)?[后内里]"
    r"|\d\s(?:decimal|significant)\b|\bnearest\s\$?\d{1,9}|保留\d位|\b(?:option|choice)\s\d{1,2}\s?[:)]",
    re.IGNORECASE,
)


class Role(Enum):
    """Why a number in a statement is not what it states."""

    ALTERNATIVE = "alternative"  # "7 or 8"
    BOUND = "bound"  # "between 3 and 5"
    OPERAND = "operand"  # "the sum of 5 and 7"
    SETTING = "setting"  # "After 3 days, ..."


def is_vague(roles: dict[numerals.Found, Role]) -> bool:
    return any(role is not Role.SETTING for role in roles.values())


def roles_of(sentence: str, numbers: list[numerals.Found]) -> dict[numerals.Found, Role]:
    """The numbers that are not the value, each with its reason."""
    roles: dict[numerals.Found, Role] = {}
    settings = [match.span() for match in _SETTING.finditer(sentence)]
    inside = [n for n in numbers if any(n.start < end and begin < n.end for begin, end in settings)]
    if len(inside) < len(numbers):
        roles.update(dict.fromkeys(inside, Role.SETTING))
    chain: Role | None = None  # the list of numbers that goes on
    for index, number in enumerate(numbers):
        before = sentence[max(0, number.start - 24) : number.start]
        after = numbers[index + 1] if index + 1 < len(numbers) else None
        between = sentence[number.end : after.start][:40] if after else ""
        if chain is not None:
            roles[number] = chain
        if _RANGE_OPENS.search(before) and after and _AND.fullmatch(between):
            roles[number] = roles[after] = Role.BOUND
        elif _OPERANDS_OPEN.search(before) and after and _AND.fullmatch(between):
            chain = roles[number] = Role.OPERAND
        elif _OPERAND_OPENS.search(before):
            roles[number] = Role.OPERAND
        elif re.search(r"±\s?$", before):
            roles[number] = Role.ALTERNATIVE
        if chain is not None and not (after and _AND.fullmatch(between)):
            chain = None
        if after and roles.get(number) is not Role.BOUND and _is_choice(sentence, numbers, index):
            roles[number] = roles[after] = Role.ALTERNATIVE
            while index and _LIST.fullmatch(sentence, numbers[index - 1].end, numbers[index].start):
                index -= 1
                roles[numbers[index]] = Role.ALTERNATIVE
    return roles


def _is_choice(sentence: str, numbers: list[numerals.Found], index: int) -> bool:
    """Whether a number and the next are two guesses: not "1/2 or 0.5", "1 hour or 60 minutes"."""
    left, right = numbers[index], numbers[index + 1]
    stop = min(right.start, left.end + 40)
    one, other = Fraction(left.text), Fraction(right.text)
    unit = re.match(_UNIT, sentence[right.end : right.end + 20])
    if to := _TO.fullmatch(sentence, left.end, stop):
        spaced = sentence[left.start : left.end].strip().isdigit()
        return one < other and spaced and (to["unit"] is None or right.end == len(sentence))
    link = _OR.fullmatch(sentence, left.end, stop)
    calculated = re.search(r"[+*/×÷]\s?[$]?$", sentence[max(0, left.start - 4) : left.start])
    if link is None or one == other or calculated:
        return False
    if link["comma"] and not link["maybe"]:
        return index > 0 and bool(_LIST.fullmatch(sentence, numbers[index - 1].end, left.start))
    units = [(link["unit"] or "").casefold(), (unit["unit"] or "" if unit else "").casefold()]
    if "%" in units and max(one, other) == 100 * min(one, other):
        return False
    return not units[0] or not units[1] or units[0].rstrip("s") == units[1].rstrip("s")


def or_word(sentence: str, end: int) -> bool:
    """Whether another number follows one in words: "seven or eight", "two or 3"."""
    link = re.match(
        r"\s*(?:or|to|或者?|到|至)\s*(?:maybe|perhaps|possibly)?\s*", sentence[end : end + 30]
    )
    return bool(link and link.group().strip() and words_after(sentence[end:], link))


def words_after(sentence: str, match: re.Match[str]) -> bool:
    rest = sentence[match.end() :]
    return leading_words(rest) is not None or rest[:1].isdigit()


def is_share(sentence: str, number: numerals.Found) -> bool:
    """Whether `number` is a part of something with a number: "10% of 50", "1/4 of 20"."""
    share = _SHARE.match(sentence, number.end)
    if share is None:
        return False
    return (
        share.group()[0] != " "
        or "/" in sentence[number.start : number.end]
        or "c" in share.group()
    )


def is_remark(sentence: str, number: numerals.Found, roles: dict[numerals.Found, Role]) -> bool:
    """Whether `number` only describes another: "12, 5 more than Jane", "12 after giving 7 away"."""
    if roles.get(number) is Role.BOUND:
        return True
    if _DOING.search(sentence[max(0, number.start - 60) : number.start]):
        return True
    before = sentence[max(0, number.start - 16) : number.start]
    compares = COMPARES.match(sentence, number.end)
    return compares is not None and _APPOSED.search(before) is not None
