"""What an answer says: the one frozen extractor of every arm and of stage 1's correctness filter.

Rules for a number, in this order; the first that yields one wins:

1. the last explicit statement ("The answer is N", "#### N", \\boxed{N}, "Answer: N", the Chinese
   forms), unless the text takes it back afterwards ("Wait, ...");
2. a first line that is nothing but a number;
3. "... = N" that closes the last sentence with a number;
4. the last number.

A statement that hedges ("7 or 8", "between 3 and 5") or works nothing out ("5 + 7", "one more
than 5") is no answer; one that goes on to a result ("10% of 50, which is 5") is that result.

A text that was cut off counts only by 1 and 2, and only if the number was not the very thing
that was cut. Any change of behaviour here changes every score: raise `EXTRACTOR_VERSION`.
"""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.labels import extract_label
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN, leading_words

__all__ = ["EXTRACTOR_VERSION", "extract_label", "extract_number", "numbers_equal"]

EXTRACTOR_VERSION = "2"


class _Stated(NamedTuple):
    value: str | None  # None: the statement says outright that there is no number
    end: int  # where in the cleaned text the value ends


_VERB = (
    r"(?:is|was|are|(?:will|would|should|must|can|might|could)(?:\s+then)?\s+be|equals?|becomes"
    r"|comes\s+(?:out\s+)?to)\b"
)
_MARKERS = re.compile(
    rf"\banswers?\b(?:[^.\n=:?!]|\.(?=\d)){{0,80}}?(?:{_VERB}\s*[:=]?|[:=]|->|→)"
    r"|####|\bans\s*[:=]"
    r"|(?:答案|结果|得数)[^。\n=:?!是为不]{0,20}(?:应该?是|应该?为|就是|等于|[是为])\s*[:=]?"
    r"|(?:答案|答|结果|得数)\s*[:=]",
    re.IGNORECASE,
)
_STATEMENTS = 60  # at each end; more is a model that repeats itself
_CLOSING = 40  # numbers at the end of the last sentence whose roles can matter
_LONGEST_SENTENCE = 500  # characters; keeps a text of nothing but markers linear
_BOX = re.compile(f"{BOX_OPEN}([^{BOX_CLOSE}]*){BOX_CLOSE}")
_SENTENCE_END = re.compile(r"(?<!\d)[.](?=\s|$)|(?<=\d)\.(?=\s|$)|[!?。;\n]")
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:#+[ \t]*)?(?:Q|Question|Problem|Input|Human|User|问题|问|题目)\s*\d*\s*:",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?。\n][ \t]*)(?:wait|actually|correction|hold on|不对|更正|等等)\b\W?", re.IGNORECASE
)
_SIGN_OFF = re.compile(
    r"(?:^|(?<=[.!?。\n]))[ \t]*(?:let me know|feel free|i hope|hope this|if you (?:have|need|want)"
    r"|please let|would you like|do you (?:have|want|need)|希望|如果?您?你?(?:还)?有|请告诉)[^\n]*",
    re.IGNORECASE,
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
_ASIDE = re.compile(r"[,;(:]|\b(?:because|since|as|so|then|and|which|when|if)\b|因为")
_REASON = re.compile(r"\b(?:because|since|as)\b|\(|因为", re.IGNORECASE)
# What turns words after "= 12" into a sentence of its own, with a number of its own.
_GOES_ON = re.compile(
    r"\b(?:is|are|was|were|has|have|had|gets?|so|then|thus|therefore|hence|leaves?|leaving|total|left"
    r"|remain\w*|answer|makes?|gives?|needs?|costs?|pays?|spends?|earns?|saves?|rounds?)\b"
    r"|所以|因此|一共|总共|剩|共|是|有|答",
    re.IGNORECASE,
)
_OPERATOR = re.compile(
    r"\^\{?-?\d|:\d"
    r"|\s*(?:[A-Za-z]{1,15}\s*)?"
    r"(?:[+*/×÷·]|-\s|-(?=\d)|x\s"
    r"|(?:times|plus|minus|multiplied by|divided by|(?:more|less|fewer) than)\s)"
    r"\s*\(?[$¥€£]?\d"
)
_SHARE = re.compile(
    r"\s?(?:%|per\s?cent)?\s?of\s(?:the\s)?\(?[$¥€£]?\d|[%个元]?的\d", re.IGNORECASE
)
_COMPARES = re.compile(
    r"\s?%?\s?(?:[A-Za-z]{1,15}\s){0,2}(?:(?:more|less|fewer|greater|higher|lower|larger|older"
    r"|younger|longer|shorter)\b|times (?:as|the|what|that)\b|of (?:whom|which|them|these)\b)",
    re.IGNORECASE,
)
_APPOSED = re.compile(r"(?:,|\b(?:which|that) (?:is|are|was))\s*$", re.IGNORECASE)
_CHECK = re.compile(
    r"(?:^|[.!?。\n])[ \t]*\(?(?:(?:to |we can |let's |let us |let me )?(?:double[- ])?"
    r"(?:check|verify)|verification|checking|proof)\b"
    r"|(?:^|[.!?。\n,])[ \t]*(?:验算|检验|验证|检查)",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(r"\b(?:so|therefore|thus|hence|final\w*)\b|所以|因此", re.IGNORECASE)

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
_BARE_EXPRESSION = re.compile(r"[\d\s.,()$+*/×÷x-]*[+*/×÷x-][\d\s.,()$+*/×÷x-]*=?|[^=]*=\s*")
_OPEN_END = re.compile(r"(?: \d{3})*(?: \d{1,3})?")  # "1 000 0" was going to be 1 000 000 or so
_LATEX_MATH = re.compile(r"\\(?:sqrt|pi|d?frac|cdot|times)|\^")


def extract_number(text: str, finish: Finish) -> tuple[Extraction, str | None]:
    """Read the number that `text` gives as its answer, by the rules at the top of this file.

    Returns the outcome and, for VALUE only, the number in canonical form: "12", "-3.5", "1/2"
    (units, currency, percent signs and separators are gone), or raw LaTeX such as `\\sqrt{2}`
    when that is what was boxed. Works on any text and never raises.
    """
    cut = finish is Finish.LENGTH
    clean = numerals.clean(text, cut=cut)
    if finish is Finish.ERROR:
        return Extraction.NO_ANSWER, None
    stated = _explicit(clean)
    if stated is None:
        stated = _bare_first_line(clean)
    missing = Extraction.TRUNCATED if cut else Extraction.NO_ANSWER
    if stated is not None:
        # Digits that end exactly where the text was cut may be half a number.
        halved = text[-1:].isalnum() and _OPEN_END.fullmatch(clean.rstrip(), stated.end) is not None
        if cut and (halved or stated.end > len(clean)):
            return Extraction.TRUNCATED, None
        if stated.value is None:
            return Extraction.NO_ANSWER, None
        return Extraction.VALUE, stated.value
    if cut or finish is Finish.REFUSED:
        return missing, None
    value = _last_number(clean)
    return (Extraction.NO_ANSWER, None) if value is None else (Extraction.VALUE, value)


def _explicit(clean: str) -> _Stated | None:
    """The last statement that names a number; None when nothing is stated."""
    statements: list[_Stated] = []
    denied: _Stated | None = None
    for start, end, sentence in _statement_sentences(clean):
        later = _NEXT_QUESTION.search(clean, statements[-1].end, start) if statements else None
        if later is not None:
            break  # The model has gone on to invent another question and its answer.
        found = _boxed_latex(sentence) or _read_statement(sentence)
        unknown = _UNKNOWN.search(sentence)
        if found is None or (unknown and unknown.end() < found.end):
            if unknown or numerals.MASK in sentence:
                denied = _Stated(None, start)
        elif found.value is None:
            denied = _Stated(None, end - len(sentence) + found.end)
        else:
            statements.append(_Stated(found.value, end - len(sentence) + found.end))
    if not statements:
        return denied
    last = statements[-1]
    if _TAKEN_BACK.search(clean, last.end):
        revised = _last_number(clean[last.end :])
        if revised is not None:
            return _Stated(revised, len(clean) + 1)  # no statement: a cut may follow
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
        stop = _SENTENCE_END.search(clean, begin, limit)
        end = stop.start() if stop else limit
        spans.append((marker.start(), end, clean[begin:end]))
    spans.sort(key=lambda span: (span[0], span[1]))
    if len(spans) > 2 * _STATEMENTS:
        return spans[:_STATEMENTS] + spans[-_STATEMENTS:]
    return spans


def _boxed_latex(sentence: str) -> _Stated | None:
    """LaTeX that is no plain number, when a box holds it: `\\boxed{\\sqrt{2}}`."""
    box = _BOX.search(sentence)
    inside = box.group(1) if box else sentence
    if _LATEX_MATH.search(inside) and "\\" in inside and (box or sentence.startswith("\\")):
        return _Stated(inside.strip(), (box.end() if box else len(sentence)))
    return None


def _read_statement(sentence: str) -> _Stated | None:
    """The number of one explicit statement, which may be a chain such as "5 + 7 = 12"."""
    worded = leading_words(sentence)
    if worded is not None:
        hedged = _or_word(sentence, worded[1])
        return _Stated(None if hedged else numerals.canonical(worded[0]), worded[1])
    numbers = [
        number
        for number in numerals.find(sentence)
        if not re.search(r"\bnot\s*$|不是$", sentence[max(0, number.start - 8) : number.start])
    ]
    if not numbers:
        opened = re.match(r"\W*(?:somewhere\s+)?(?:either|between|from)\s", sentence, re.IGNORECASE)
        return _Stated(None, len(sentence)) if opened and _words_after(sentence, opened) else None
    first = numbers[0]
    if numerals.MASK in sentence[: first.start]:
        return None  # "The answer is 3:30 on 5 ..." states a time.
    roles = _roles(sentence, numbers)
    kept = [number for number in numbers if number not in roles]
    lead = kept[0] if kept else first
    worded_start = re.search(r"[A-Za-z\u4e00-\u9fff]{2}", sentence[: first.start]) is not None
    if _leads_to_equals(sentence, lead, worded_start):
        return _chain_result(sentence, _apart(roles))
    concluded = _concluded(sentence, kept)
    calculates = _OPERATOR.match(sentence, lead.end) is not None
    share = _is_share(sentence, lead)
    if concluded and (calculates or share or worded_start or first in roles):
        return concluded
    if calculates:
        return _Stated(None, lead.end)  # "The answer is 5 + 7": nothing was worked out.
    if roles.get(first) is _Role.ALTERNATIVE or (not kept and _is_vague(roles)):
        return _Stated(None, len(sentence))
    return _Stated(lead.text, len(sentence) if share else lead.end)


def _apart(roles: dict[numerals.Found, _Role]) -> set[int]:
    return {number.end for number, role in roles.items() if role is not _Role.SETTING}


def _leads_to_equals(sentence: str, lead: numerals.Found, worded_start: bool) -> bool:
    """Whether the "=" is the statement itself and no reason given for it.

    A statement that tells its story first ("There are 180 eggs for 20 people, 180 / 20 = 9") ends
    in its value; one that starts with a number has named it.
    """
    equals = sentence.find("=")
    if equals < 0:
        return False
    stop = _REASON if worded_start else _ASIDE
    return not stop.search(sentence[lead.end : max(equals, lead.end)])


def _is_share(sentence: str, number: numerals.Found) -> bool:
    """Whether `number` is a part of something with a number: "10% of 50", "1/4 of 20"."""
    share = _SHARE.match(sentence, number.end)
    if share is None:
        return False
    return (
        share.group()[0] != " "
        or "/" in sentence[number.start : number.end]
        or "c" in share.group()
    )


def _concluded(sentence: str, kept: list[numerals.Found]) -> _Stated | None:
    """What the last "which is", "so" or "total of" leads to, unless it only compares."""
    for match in reversed(list(_CONCLUSION.finditer(sentence))):
        tail = sentence[match.end() :]
        after = [number for number in kept if number.start >= match.end()]
        if not after:
            continue
        equals = tail.find("=")
        if equals >= 0 and not _ASIDE.search(sentence[after[0].end : match.end() + equals]):
            result = _chain_result(tail, set())
            if result is not None:
                return _Stated(result.value, match.end() + result.end)
        if _OPERATOR.match(sentence, after[0].end) or _is_share(sentence, after[0]):
            continue
        if not _COMPARES.match(sentence, after[0].end):
            return _Stated(after[0].text, after[0].end)
    return None


class _Role(Enum):
    """Why a number in a statement is not what it states."""

    ALTERNATIVE = "alternative"  # "7 or 8"
    BOUND = "bound"  # "between 3 and 5"
    OPERAND = "operand"  # "the sum of 5 and 7"
    SETTING = "setting"  # "After 3 days, ..."


def _is_vague(roles: dict[numerals.Found, _Role]) -> bool:
    return any(role is not _Role.SETTING for role in roles.values())


def _roles(sentence: str, numbers: list[numerals.Found]) -> dict[numerals.Found, _Role]:
    """The numbers that are not the value, each with its reason."""
    roles: dict[numerals.Found, _Role] = {}
    settings = [match.span() for match in _SETTING.finditer(sentence)]
    inside = [n for n in numbers if any(n.start < end and begin < n.end for begin, end in settings)]
    if len(inside) < len(numbers):
        roles.update(dict.fromkeys(inside, _Role.SETTING))
    chain: _Role | None = None  # the list of numbers that goes on
    for index, number in enumerate(numbers):
        before = sentence[max(0, number.start - 24) : number.start]
        after = numbers[index + 1] if index + 1 < len(numbers) else None
        between = sentence[number.end : after.start][:40] if after else ""
        if chain is not None:
            roles[number] = chain
        if _RANGE_OPENS.search(before) and after and _AND.fullmatch(between):
            roles[number] = roles[after] = _Role.BOUND
        elif _OPERANDS_OPEN.search(before) and after and _AND.fullmatch(between):
            chain = roles[number] = _Role.OPERAND
        elif _OPERAND_OPENS.search(before):
            roles[number] = _Role.OPERAND
        elif re.search(r"±\s?$", before):
            roles[number] = _Role.ALTERNATIVE
        if chain is not None and not (after and _AND.fullmatch(between)):
            chain = None
        if after and roles.get(number) is not _Role.BOUND and _is_choice(sentence, numbers, index):
            roles[number] = roles[after] = _Role.ALTERNATIVE
            while index and _LIST.fullmatch(sentence, numbers[index - 1].end, numbers[index].start):
                index -= 1
                roles[numbers[index]] = _Role.ALTERNATIVE
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


def _or_word(sentence: str, end: int) -> bool:
    """Whether another number follows one in words: "seven or eight", "two or 3"."""
    link = re.match(
        r"\s*(?:or|to|或者?|到|至)\s*(?:maybe|perhaps|possibly)?\s*", sentence[end : end + 30]
    )
    return bool(link and link.group().strip() and _words_after(sentence[end:], link))


def _words_after(sentence: str, match: re.Match[str]) -> bool:
    rest = sentence[match.end() :]
    return leading_words(rest) is not None or rest[:1].isdigit()


def _chain_result(sentence: str, apart: set[int]) -> _Stated | None:
    """The side of the last "=" that is a number and no expression: 12 in "5 + 7 = 12 apples".

    `apart` holds where the numbers end that are only alternatives, bounds or operands.
    """
    offset = len(sentence)
    for piece in reversed(sentence.split("=")):
        offset -= len(piece)
        numbers = numerals.find(piece)
        if numbers and not _OPERATOR.match(piece, numbers[0].end):
            end = offset + numbers[0].end
            return _Stated(None if end in apart else numbers[0].text, end)
        offset -= 1
    return None


def _bare_first_line(clean: str) -> _Stated | None:
    """A number alone on the first line, unless the last line is another one (a column)."""
    lines = [line for line in clean.splitlines() if line.strip()]
    if len(lines) < 2 or not numerals.is_bare(lines[0]):
        return None
    if numerals.is_bare(lines[-1]):
        return None
    number = numerals.find(lines[0])[0]
    return _Stated(number.text, clean.index(lines[0]) + number.end)


def _last_number(clean: str) -> str | None:
    """Rules 3 and 4, on a text without the closing courtesies."""
    text = numerals.mask_labels(_without_check(_SIGN_OFF.sub("", clean)))
    for sentence in reversed(_SENTENCE_END.split(text)):
        if not re.search(r"\d", sentence) or not numerals.find(sentence):
            continue
        if _BARE_EXPRESSION.fullmatch(sentence.strip()) and not numerals.is_bare(sentence):
            return None  # "5 + 7" or "5 + 7 =": an expression is no answer.
        return _closing_number(_without_working(sentence))
    return None


def _closing_number(sentence: str) -> str | None:
    """The number that the last sentence leaves: its last, or what its last "=" comes to."""
    numbers = numerals.find(sentence)
    roles = _roles(sentence, numbers[-_CLOSING:])
    last = numbers[-1]
    if roles.get(last) is _Role.ALTERNATIVE:
        return None
    tail = sentence.rpartition("=")[2]
    if "=" in sentence:
        inside = numerals.find(tail)
        aside = len(inside) > 1 and _ASIDE.search(tail)
        if not aside or not _GOES_ON.search(tail[inside[0].end : inside[-1].start]):
            result = _chain_result(sentence, set())
            return result.value if result else last.text
    while len(numbers) > 1 and _is_remark(sentence, numbers[-1], roles):
        numbers.pop()
    return None if roles.get(numbers[-1]) is _Role.BOUND else numbers[-1].text


def _is_remark(sentence: str, number: numerals.Found, roles: dict[numerals.Found, _Role]) -> bool:
    """Whether `number` only describes another: "12 apples, 5 more than Jane", "from 9 to 5"."""
    if roles.get(number) is _Role.BOUND:
        return True
    before = sentence[max(0, number.start - 16) : number.start]
    compares = _COMPARES.match(sentence, number.end)
    return compares is not None and _APPOSED.search(before) is not None


def _without_check(text: str) -> str:
    """The text up to a check of the answer, unless the check is all there is or concludes."""
    check = _CHECK.search(text)
    if check is None or not re.search(r"\d", text[: check.start()]):
        return text
    return text if _CONCLUDES.search(text, check.end()) else text[: check.start()]


def _without_working(sentence: str) -> str:
    """Take "(5 + 7)" off "12 apples (5 + 7)", if a number stays."""
    bare = re.sub(
        r"(?<=[\w%])\s?\(([^()]{1,120})\)",
        lambda match: " " if re.search(r"\d\s?[+*/×÷=-]\s?[$]?\d", match[1]) else match.group(),
        sentence,
    )
    return bare if numerals.find(bare) else sentence


def numbers_equal(a: str, b: str) -> bool:
    """Whether two answers are the same number; what cannot be read equals nothing.

    Integers must be equal; with a fraction or a decimal a relative difference of 1e-6 is allowed,
    so that 0.333333 is 1/3. LaTeX that is no plain number goes to math-verify, in a process of
    its own for at most 10 seconds: a power tower inside one C call would outlive any timer here.
    """
    left, right = numerals.parse(a), numerals.parse(b)
    if left is not None and right is not None:
        if left.denominator == right.denominator == 1:
            return left == right
        return abs(left - right) <= Fraction(1, 10**6) * max(abs(left), abs(right))
    if not (_LATEX_MATH.search(a) or _LATEX_MATH.search(b)):
        return False
    return numerals.latex_equal(a, b)
