"""Which number an answer gives.

Rules, in this order; the first that yields one wins:

1. the last explicit statement ("The answer is N", "#### N", \\boxed{N}, "Answer: N", the Chinese
   forms), unless the text takes it back afterwards ("Wait, ...");
2. a first line that is nothing but a number;
3. "... = N" that closes the last sentence with a number;
4. the last number.

A text that was cut off counts only by 1 and 2, and only if the number was not the very thing
that was cut.
"""

from __future__ import annotations

import re
from fractions import Fraction

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.number_roles import Role, is_remark, roles_of
from pipeline.stage3_evaluate.number_statements import (
    ASIDE,
    LATEX_MATH,
    SENTENCE_END,
    Stated,
    chain_result,
    explicit,
)

_CLOSING = 40  # numbers at the end of the last sentence whose roles can matter
_SIGN_OFF = re.compile(
    r"(?:^|(?<=[.!?。\n]))[ \t]*(?:let me know|feel free|i hope|hope this|if you (?:have|need|want)"
    r"|please let|is there anything|would you like|do you (?:have|want|need)"
    r"|希望|如果?您?你?(?:还)?有|请告诉)[^\n]*",
    re.IGNORECASE,
)
# What turns words after "= 12" into a sentence of its own, with a number of its own.
_GOES_ON = re.compile(
    r"\b(?:is|are|was|were|has|have|had|gets?|so|then|thus|therefore|hence|leaves?|leaving|total|left"
    r"|remain\w*|answer|makes?|gives?|needs?|costs?|pays?|spends?|earns?|saves?|rounds?)\b"
    r"|所以|因此|一共|总共|剩|共|是|有|答",
    re.IGNORECASE,
)
_CHECK = re.compile(
    r"(?:^|[.!?。\n])[ \t]*\(?(?:(?:to |we can |let's |let us |let me )?(?:double[- ])?"
    r"(?:check|verify)|verification|checking|proof|note(?=\s*:))\b"
    r"|(?:^|[.!?。\n,])[ \t]*(?:验算|检验|验证|检查)",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(r"\b(?:so|therefore|thus|hence|final\w*)\b|所以|因此", re.IGNORECASE)
_NOT_KNOWN = re.compile(
    r"\b(?:impossible|not possible|cannot|can't|no way)\s+(?:to\s+|be\s+)?"
    r"(?:say|tell|know|determined?|worked out|answered)\b",
    re.IGNORECASE,
)
_UNSOLVED = re.compile(r"\d[xyzn]\s*(?:[-+]\s*\d{1,9}\s*)?=\s*[$]?\d[\d.,]*\W*$")  # "4x = 100"
_BECAUSE = re.compile(r"\b(?:because|since)\b|因为", re.IGNORECASE)
_TOTALLED = re.compile(
    r"\s*(?:[A-Za-z]{1,15}\s){0,3}?(?:in (?:total|all)\b|altogether\b)", re.IGNORECASE
)
_BARE_EXPRESSION = re.compile(r"[\d\s.,()$+*/×÷x-]*[+*/×÷x-][\d\s.,()$+*/×÷x-]*=?|[^=]*=\s*")
_OPEN_END = re.compile(r"(?: \d{3})*(?: \d{1,3})?")  # "1 000 0" was going to be 1 000 000 or so


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
    stated = explicit(clean, _last_number)
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


def _bare_first_line(clean: str) -> Stated | None:
    """A number alone on the first line, unless the last line is another one (a column)."""
    lines = [line for line in clean.splitlines() if line.strip()]
    if len(lines) < 2 or not numerals.is_bare(lines[0]):
        return None
    if numerals.is_bare(lines[-1]):
        return None
    number = numerals.find(lines[0])[0]
    return Stated(number.text, clean.index(lines[0]) + number.end)


def _last_number(clean: str) -> str | None:
    """Rules 3 and 4, on a text without the closing courtesies."""
    text = numerals.mask_labels(_without_check(_SIGN_OFF.sub("", clean)))
    for sentence in reversed(SENTENCE_END.split(text)):
        if not re.search(r"\d", sentence) or not numerals.find(sentence):
            continue
        if _BARE_EXPRESSION.fullmatch(sentence.strip()) and not numerals.is_bare(sentence):
            return None  # "5 + 7" or "5 + 7 =": an expression is no answer.
        return _closing_number(_without_working(sentence))
    return None


def _closing_number(sentence: str) -> str | None:
    """The number that the last sentence leaves: its last, or what its last "=" comes to."""
    numbers = numerals.find(sentence)
    roles = roles_of(sentence, numbers[-_CLOSING:])
    last = numbers[-1]
    if roles.get(last) is Role.ALTERNATIVE:
        return None
    if _UNSOLVED.search(sentence):
        return None
    tail = sentence.rpartition("=")[2]
    if "=" in sentence:
        inside = numerals.find(tail)
        aside = len(inside) > 1 and ASIDE.search(tail)
        if not aside or not _GOES_ON.search(tail[inside[0].end : inside[-1].start]):
            result = chain_result(sentence, set())
            return result.value if result else last.text
    if _NOT_KNOWN.search(sentence):
        return None
    if totalled := [n for n in numbers if _TOTALLED.match(sentence, n.end)]:
        return totalled[-1].text
    numbers = _without_reason(sentence, numbers)
    while len(numbers) > 1 and is_remark(sentence, numbers[-1], roles):
        numbers.pop()
    return None if roles.get(numbers[-1]) is Role.BOUND else numbers[-1].text


def _without_reason(sentence: str, numbers: list[numerals.Found]) -> list[numerals.Found]:
    """The numbers before a "because", if any stand there and nothing is concluded behind it."""
    reason = _BECAUSE.search(sentence, numbers[0].end)
    if reason is None or _CONCLUDES.search(sentence, reason.end()):
        return numbers
    return [number for number in numbers if number.end <= reason.start()]


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
    aside = re.sub(r"\s\((?:that's|that is|or|about|i\.?e\.?|which is)\s[^()]*\)\W*$", "", bare)
    bare = aside if numerals.find(aside) else bare
    # "14 chairs (20 less 6)": what stands alone before brackets is what the sentence says.
    named = re.match(r"([^()]*)\([^()]*\)\W*$", bare)
    if named and numerals.is_bare(named[1]):
        return named[1]
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
    if not (LATEX_MATH.search(a) or LATEX_MATH.search(b)):
        return False
    return a.strip() == b.strip() or numerals.latex_equal(a, b)
