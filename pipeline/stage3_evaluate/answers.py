"""What an answer says: the one frozen extractor of every arm and of stage 1's correctness filter.

Rules for a number, in this order; the first that yields one wins:

1. the last explicit statement ("The answer is N", "#### N", \\boxed{N}, "Answer: N", the Chinese
   forms), unless the text takes it back afterwards ("Wait, ...");
2. a first line that is nothing but a number;
3. "... = N" that closes the last sentence with a number;
4. the last number.

A text that was cut off counts only by 1 and 2, and only if the number was not the very thing
that was cut. Any change of behaviour here changes every score: raise `EXTRACTOR_VERSION`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.labels import extract_label
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN, leading_words

__all__ = ["EXTRACTOR_VERSION", "extract_label", "extract_number", "numbers_equal"]

EXTRACTOR_VERSION = "1"


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
    r"\b(?:so|therefore|thus|hence|giving|gives|leaving|leaves|which (?:is|means|makes)"
    r"|(?:a|in) total(?: of)?|altogether)\b|所以|因此|一共|总共|还剩|剩下|共有?",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"[,;(:]|\b(?:because|since|as|so|then|and|which|when|if)\b|因为")
_OPERATOR = re.compile(
    r"\s*(?:[A-Za-z]{1,15}\s*)?"
    r"(?:[+*/×÷·]|-\s|-(?=\d)|x\s"
    r"|(?:times|plus|minus|multiplied by|divided by|(?:more|less|fewer) than)\s)"
    r"\s*\(?[$¥€£]?\d"
)
_BARE_EXPRESSION = re.compile(r"[\d\s.,()$+*/×÷x-]*[+*/×÷x-][\d\s.,()$+*/×÷x-]*=?|[^=]*=\s*")
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
        halved = stated.end >= len(clean.rstrip()) and text[-1:].isalnum()
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
    return sorted(spans, key=lambda span: (span[0], span[1]))


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
        return _Stated(numerals.canonical(worded[0]), worded[1])
    numbers = [
        number
        for number in numerals.find(sentence)
        if not re.search(r"\bnot\s*$|不是$", sentence[max(0, number.start - 8) : number.start])
    ]
    if not numbers:
        return None
    first = numbers[0]
    if numerals.MASK in sentence[: first.start]:
        return None  # "The answer is 3:30 on 5 ..." states a time.
    equals = sentence.find("=")
    if equals >= 0 and not _ASIDE.search(sentence[first.end : max(equals, first.end)]):
        return _chain_result(sentence)
    concluded = [match.end() for match in _CONCLUSION.finditer(sentence)]
    after = [number for number in numbers if concluded and number.start >= concluded[-1]]
    calculates = _OPERATOR.match(sentence, first.end) is not None
    worded_start = re.search(r"[A-Za-z\u4e00-\u9fff]{2}", sentence[: first.start])
    if after and (calculates or worded_start):
        return _Stated(after[0].text, after[0].end)
    # "The answer is 5 + 7": nothing was worked out.
    return _Stated(None if calculates else first.text, first.end)


def _chain_result(sentence: str) -> _Stated | None:
    """The side of the last "=" that is a number and no expression: 12 in "5 + 7 = 12 apples"."""
    offset = len(sentence)
    for piece in reversed(sentence.split("=")):
        offset -= len(piece)
        numbers = numerals.find(piece)
        if numbers and not _OPERATOR.match(piece, numbers[0].end):
            return _Stated(numbers[0].text, offset + numbers[0].end)
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
    text = numerals.mask_labels(_SIGN_OFF.sub("", clean))
    found: str | None = None
    for sentence in reversed(_SENTENCE_END.split(text)):
        if not re.search(r"\d", sentence) or not numerals.find(sentence):
            continue
        if _BARE_EXPRESSION.fullmatch(sentence.strip()) and not numerals.is_bare(sentence):
            return None  # "5 + 7" or "5 + 7 =": an expression is no answer.
        found = numerals.find(sentence)[-1].text
        tail = sentence.rpartition("=")[2]
        if "=" in sentence and not (len(numerals.find(tail)) > 1 and _ASIDE.search(tail)):
            result = _chain_result(sentence)
            found = result.value if result else found
        break
    return found


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
