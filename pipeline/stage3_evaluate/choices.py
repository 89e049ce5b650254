"""Which option of a multiple-choice question an answer names; read as `labels.py` reads labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from pipeline.records import Extraction, Finish

_STATED = re.compile(
    r"(?:\b(?:answers?|choice|option)\b[^.\n:]{0,40}?(?:\b(?:is|are)\b\s*[:=]?|[:=]|->|→)"
    r"|答案\s*(?:应该?)?[是为选:：]*|应?选[择项]?\s*[:：]?|####|\\boxed\s*(?=\{))"
    r"[\s*_\"'“(（\[{]*(?:(?:option|choice)\s+)?[(（]?",
    re.IGNORECASE,
)
_ENDS = r"(?=$|[\s.,;:!?)）\]}*_\"'”。，：])"
_LETTER = re.compile(rf"([A-Z0-9]){_ENDS}|([a-z])(?=[)）])")
_ARTICLE = re.compile(r"A\s+(?!because\b|since\b|as\b|and\b|is\b)[a-z]")  # "the answer is A prime"
_MARKED = re.compile(r"^[\s*_(（\[]*([A-Za-z0-9])(?:[\s*_]*[)）\].:：,-]|[\s*_]*$)")
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?。\n]\s*)(?:wait|actually|correction|不对|更正)\b", re.IGNORECASE
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

    The last explicit statement ("The answer is (B)", "Answer: B", \\boxed{B}), unless the text
    takes it back afterwards; else a first or last line that is a letter, "B) ..." or an option's
    text; else the one option whose text is the whole answer. A cut text counts by the first alone.
    """
    letters = {letter.upper(): letter for letter in options}
    stated = [found for found in _STATED.finditer(text) if _after(text, found, letters, options)]
    if stated:
        if _TAKEN_BACK.search(text, stated[-1].end()):
            return Extraction.NO_ANSWER, None
        return Extraction.VALUE, _after(text, stated[-1], letters, options)
    if finish is Finish.LENGTH:
        return Extraction.TRUNCATED, None
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[0], lines[-1]) if lines else ():
        marked = _MARKED.match(line)
        if marked and marked.group(1).upper() in letters:
            return Extraction.VALUE, letters[marked.group(1).upper()]
        same = [letter for letter, option in options.items() if plain(option) == plain(line)]
        if len(same) == 1:
            return Extraction.VALUE, same[0]
    return Extraction.NO_ANSWER, None


def _after(
    text: str, marker: re.Match[str], letters: Mapping[str, str], options: Mapping[str, str]
) -> str | None:
    """The option that stands right behind a marker."""
    rest = text[marker.end() : marker.end() + 400]
    found = _LETTER.match(rest)
    if found and found.group().upper() in letters and not _ARTICLE.match(rest):
        return letters[found.group().upper()]
    said = plain(re.split(r"[\n}]", rest)[0])
    for letter, option in options.items():
        if said == plain(option):
            return letter
    return None


def plain(text: str) -> str:
    """Without case, widths, runs of spaces, and marks around it."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"^[\s*_`\"'“”‘’]+|[\s*_`\"'“”‘’.。!]+$", "", folded)
