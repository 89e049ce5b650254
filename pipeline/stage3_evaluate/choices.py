"""Which option of a multiple-choice question an answer names, by its letter or by its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.named import extract_named, named_at
from pipeline.stage3_evaluate.statements import (
    CUT,
    NOTHING,
    cleaned,
    sentences,
    statements,
    taken_back,
    without_half,
)

_MARKS = re.compile(
    r"\b(?:(?:correct|right|best|final|my)\s+)?(?:choice|option)\s+(?:(?:is|are)\b\s*[:=]?|[:=]|->)"
    r"|[,;]\s*(?:so|therefore|thus|hence)\s+(?:it(?:'s| is)\s+)?"
    r"(?=\(?[A-Z0-9]\)?[\s.!]*(?:$|\n))"
    r"|\b(?:matches|corresponds to|is)\s+(?=(?:option|choice|answer)\s+[(\[]?[A-Z0-9]\b)"
    r"|\banswer\s+choice\s+(?=\(?[A-Z0-9]\b)"
    r"|\b(?:clearly|obviously|definitely|certainly|probably)\b[\s,:]*(?=\(?[A-Z0-9]\b)"
    r"|\b(?:choose|pick|select|go with|chose)\s"
    r"|\b(?:it|this|that)(?:'s|’s| is)\s+(?=[(（\[]\w[)）\]])"
    r"|(?:^|[.!?\n]\s*)(?:so|therefore|thus|hence)\b[\s,:]*(?:it(?:'s| is)\s)?(?=\(?[A-Z0-9]\b)"
    r"|(?<![不别])应?选[择项]?\s*:?",
    re.IGNORECASE,
)
_OPENS = r"[\s*_\"'“(（\[{]*(?:(?:option|choice)\s+)?[(（]?"
_ENDS = r"(?=$|[\s.,;:!?)）\]}*_\"'”。，：])"
_LETTER = re.compile(rf"{_OPENS}(?:([A-Z0-9]){_ENDS}|([a-z])(?=[)）]))")
_ARTICLE = re.compile(
    r"A\s+(?!because\b|since\b|as\b|and\b|or\b|is\b)[a-z]"
)  # "the answer is A prime"
_MARKED = re.compile(
    r"^(?:(?:[Oo]ption|[Cc]hoice)\s)?[\s*_(（\[]*([A-Za-z0-9])(?:[\s*_]*[)）\].:：,-]|[\s*_]*$)"
)
# "... the crow. (C)", "The one that fits is B."
_CLOSING = re.compile(
    r"(?:(?:[.!?:,\n]|\bis|\bso)\s*\((?P<marked>[A-Z0-9])\)|\b(?:is|with|be)\s+(?P<bare>[A-Z]))[.\s]*$"
)
_UNSURE = re.compile(r"\b(?:or|could|may|might|perhaps|maybe|not|neither)\b|\?", re.IGNORECASE)
_HEDGE = re.compile(r"[)）\]\s]*(?:,\s*)?(?:or|and|/|&|或者?|和)\s*(?:option\s*)?[(（]?[A-Z0-9]\b")
# "(B) is the correct answer", "Option B is right"
_CORRECT = re.compile(
    r"(?:^|[.!?,:;\n]\s*|\b[Oo]ption\s+)[(（]?([A-Z0-9])[)）]?\s+(?:remains\b|(?:is|would be"
    r"|must be)\s+(?:clearly\s+|therefore\s+)?(?:the\s+)?(?:correct|right"
    r"|best|only|answer|true|most likely)\b)",
    re.MULTILINE,
)


def options_of(choices: Any) -> dict[str, str]:
    """Letter -> text of a seed's choices: a list, a table, or `{text: [...], label: [...]}`.

    Raises ValueError for anything else.
    """
    if isinstance(choices, dict) and set(choices) == {"text", "label"}:
        texts, letters = choices["text"], choices["label"]
        if isinstance(texts, list) and isinstance(letters, list) and len(texts) == len(letters):
            return {str(letter): str(text) for letter, text in zip(letters, texts, strict=True)}
    elif isinstance(choices, dict) and choices:
        return {str(letter): str(text) for letter, text in choices.items()}
    elif isinstance(choices, list) and 0 < len(choices) <= len(ascii_uppercase):
        return {ascii_uppercase[i]: str(text) for i, text in enumerate(choices)}
    raise ValueError(
        f"choices are a list of texts, or a table of letters and texts; seen: {choices!r:.80}"
    )


def right_choice(reference: str, options: Mapping[str, str]) -> str | None:
    """The letter that a reference means: the letter itself, or an option's text."""
    bare = reference.strip().strip("().").upper()
    for letter, text in options.items():
        if bare == letter.upper() or plain(reference) == plain(text):
            return letter
    return None


def extract_choice(
    text: str, options: Mapping[str, str], finish: Finish
) -> tuple[Extraction, str | None]:
    """The letter an answer gives.

    The last explicit statement ("The answer is (B)", "Option B is correct", \\boxed{B}), unless the
    text takes it back afterwards; else a first or last line that is a letter, "B) ..." or an
    option's text; else what `named.py` finds of the options' texts. Two options are none. A cut
    text counts by a statement, or by a first line that begins with a marked letter.
    """
    if finish is Finish.ERROR:
        return NOTHING
    cut = finish is Finish.LENGTH
    clean = cleaned(text, cut=cut)
    halved = cut and text[-1:].isalnum() and clean[-2:-1] not in ("(", "（")
    whole = without_half(clean) if halved else clean
    letters = {letter.upper(): letter for letter in options}
    stated, hedged = _stated(whole, letters, options)
    if hedged:
        return CUT if cut and stated is None else NOTHING
    if stated is not None:
        return Extraction.VALUE, stated
    lines = [line for line in whole.splitlines() if line.strip()]
    for line in (lines[:1] if cut else [lines[0], lines[-1]]) if lines else ():
        marked = _MARKED.match(line)
        if marked and marked.group(1).upper() in letters:
            more = len(whole.strip()) > marked.end()
            if not cut or (more and marked.group()[-1:] in ")）.]:"):
                return Extraction.VALUE, letters[marked.group(1).upper()]
    ends = sentences(whole)[-1:] if not cut else []
    closing = _CLOSING.search(whole) if ends and not _UNSURE.search(ends[0]) else None
    last = (closing["marked"] or closing["bare"]) if closing else ""
    if last in letters:
        return Extraction.VALUE, letters[last]
    same = {letter: (option,) for letter, option in options.items() if len(plain(option)) > 1}
    if len({plain(option) for option in options.values()}) < len(options) or not same:
        return CUT if cut else NOTHING
    return extract_named(text, same, finish)


def _stated(
    clean: str, letters: Mapping[str, str], options: Mapping[str, str]
) -> tuple[str | None, bool]:
    """The letter that is stated last, and whether two were stated at once."""
    found: list[tuple[int, str | None]] = []
    for statement in statements(clean, _MARKS):
        rest = re.sub(r"^\W*not\b[^.\n]{0,60}?\b(?:but|it is|it's)\b", "", statement.rest)
        letter = _LETTER.match(rest)
        name = (letter[1] or letter[2]).upper() if letter else ""
        if re.match(r"\W*(?:either|both)\b", rest, re.IGNORECASE):
            found.append((statement.start, None))
        elif (
            letter
            and name in letters
            and not _ARTICLE.match(rest[letter.start(letter.lastindex or 0) :])
        ):
            hedged = _HEDGE.match(rest, letter.end())
            found.append((statement.start, None if hedged else letters[name]))
        elif named := _option_at(rest, options):
            found.append((statement.start, named))
    for match in _CORRECT.finditer(clean):
        if match[1] in letters:
            found.append((match.start(1), letters[match[1]]))
    found.sort(key=lambda one: one[0])
    if not found:
        return None, False
    start, last = found[-1]
    revised = taken_back(clean, start)
    if revised is not None:
        said, _ = _stated(clean[revised:], letters, options)
        return said, said is None
    return last, last is None


def _option_at(rest: str, options: Mapping[str, str]) -> str | None:
    """The option whose text stands there: all of the line, or its beginning."""
    said = plain(re.split(r"[\n}]", rest)[0])
    for letter, option in options.items():
        if said == plain(option):
            return letter
    texts = [option for option in options.values() if len(plain(option)) > 1]
    if len(set(map(plain, texts))) < len(options):
        return None
    return named_at(rest, {letter: (option,) for letter, option in options.items()})


def plain(text: str) -> str:
    """Without case, widths, runs of spaces, and marks around it."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"^[\s*_`\"'“”‘’]+|[\s*_`\"'“”‘’.。!]+$", "", folded)
