"""`repetition`: text that goes round in circles, as words, lines, characters or as a whole."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from itertools import groupby

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import taught, words

TURNS = 4  # of the same run of words; a song says a line two or three times
LEAST_WORDS = 16  # that the turns cover together, so "no, no, no, no!" is no loop
LEAST_NUMBERS = 60  # where all words are numbers: a vector of zeros, the digits of 1/7
LINES_SHARE = 0.4  # of a text that equal lines make up, so the refrain of a long song is no loop
_RULER = r"\s\-=_*#.~|·—…+"  # drawn lines and the dots of a table of contents
_SAME_CHARACTER = re.compile(rf"([^{_RULER}\d])\1{{39}}|(\S)\2{{399}}")
_LONG_WORD = re.compile(r"\S{60,}")
_TURNS_IN_A_WORD = re.compile(r"([^\d\W]\S{1,20}?)\1{7}")
_TABLE_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)

Gram = tuple[str, str, str, str]


def repetition(max_share: float = 0.5, max_lines: int = 4) -> Filter:
    """Drop loops: text that repeats itself, anywhere in it.

    By line, by a run of words that comes round again and again (a Chinese character is a word), by
    character, by the share of 4-grams of words that are repeats (Gopher's idea, 2112.11446), and
    by what zlib makes of a long text. A refrain between verses, a column of equal cells and a list
    of numbers are no loops. Score: the share of repeated 4-grams.
    """

    def check(row: Candidate) -> Verdict:
        text = taught(row)
        if found := _same_lines(text, max_lines) or _same_characters(text):
            return drop("repetition", found)
        tokens = words(_TABLE_ROW.sub("", text) if "|" in text else text)
        grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
        repeats = len(grams) - len(set(grams))
        share = round(repeats / len(grams), 3) if len(grams) >= 8 else 0.0
        # The smallest loop, of 4 words, leaves this many repeats; most texts have fewer.
        if repeats >= LEAST_WORDS - 3 - 4 and (found := _turns(grams)):
            return drop("repetition", found, share)
        if share > max_share and not _of_numbers(grams):
            return drop("repetition", "repeated 4-grams", share)
        if len(text) > 400 and (share > 0.2 or len(text) > 20 * len(tokens)):
            data = text.encode()
            if len(zlib.compress(data)) / len(data) < 0.12:
                return drop("repetition", "compresses like a loop", share)
        return keep("repetition", share)

    return check


def _same_lines(text: str, max_lines: int) -> str:
    """What to say of a line that makes up much of the text, or ""."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if len(lines) <= max_lines:
        return ""
    counts = Counter(line for line in lines if len(line) > 8 and not line.startswith("|"))
    for line, times in counts.most_common(1):
        if times > max_lines and times * len(line) > LINES_SHARE * sum(map(len, lines)):
            return f"the same line {times} times"
    in_a_row = max((sum(1 for _ in same), len(line)) for line, same in groupby(lines))
    if in_a_row[0] > 2 * max_lines and in_a_row[0] > LINES_SHARE * len(lines):
        return f"the same line {in_a_row[0]} times"
    return ""


def _same_characters(text: str) -> str:
    # A run of 40 fills one of these pieces of 20; a regex over every text would cost more than all.
    pieces = (text[i : i + 20] for i in range(0, len(text) - 19, 20))
    if any(piece == piece[0] * 20 for piece in pieces) and _SAME_CHARACTER.search(text):
        return "the same character over and over"
    if any(_TURNS_IN_A_WORD.search(word[0][:2000]) for word in _LONG_WORD.finditer(text)):
        return "the same characters over and over"
    return ""


def _of_numbers(grams: list[Gram]) -> bool:
    """Whether what repeats is mostly numbers: a matrix, a sequence."""
    return sum(gram[0].isdigit() for gram in grams) > len(grams) / 2


def _turns(grams: list[Gram]) -> str:
    """What to say of a run of words that comes round at least TURNS times in a row, or "".

    In such a run every 4-gram stands exactly one turn after its last place.
    """
    last: dict[Gram, int] = {}
    period = run = 0
    for place, gram in enumerate(grams):
        distance = place - last.get(gram, place)
        last[gram] = place
        if distance != period:
            period, run = distance, 0
        run += 1
        covered = run + period + 3
        if period and covered >= max(TURNS * period, LEAST_WORDS):
            turn = [g[0] for g in grams[place - period + 1 : place + 1]]
            numbers = all(word.isdigit() for word in turn)
            if not numbers or covered >= LEAST_NUMBERS:
                return f"the same {period} words again and again"
    return ""
