"""Words, sentences, paragraphs and lines of an English or Chinese answer.

Written without any language package, so that an evaluation needs no download and gives the same
numbers everywhere. Every pattern here runs in time linear in the text: answers are not trusted.
"""

from __future__ import annotations

import re

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# A Chinese character counts as a word, as word processors count it; elsewhere a word is a run
# of letters and digits that may hold apostrophes, hyphens and decimal points inside.
_WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]++(?:(?:['’\-]|(?<=\d)[.,](?=\d))[^\W_{HAN}]++)*+")

# The lookbehind lets a run of marks match only from its first mark: without it, a megabyte of
# dots would be tried from each of its positions.
_END = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’)\]*_»]*+(?=\s|$)|(?<![。！？])[。！？]++[\"'”’」』）)\]*_]*+"
)
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'“])((?:[A-Za-z]\.)*[A-Za-z]{1,6})\.$")
_BEFORE_NAME = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "mt", "fig", "gen", "col", "capt", "sgt", "rev"}
)
_BEFORE_MORE = frozenset(
    {"e.g", "i.e", "etc", "vs", "no", "approx", "dept", "inc", "ltd", "co", "jr", "sr"}
) | {"a.m", "p.m", "u.s", "u.k"}

_LIST_ITEM = re.compile(r"(?:[-*+•·–]\s+|\d{1,4}(?:[.)．](?!\d)|、)|#{1,6}\s)")


def words(text: str) -> list[str]:
    """The words of `text` in order; each Chinese character is one."""
    return _WORD.findall(text)


def han_characters(text: str) -> int:
    return len(re.findall(rf"[{HAN}]", text))


def lines(text: str) -> list[str]:
    """Lines that hold something, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """Blocks of lines with a blank line between them."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line.strip())
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def list_marker(line: str) -> str:
    """The bullet, number or heading sign that a stripped line begins with, or nothing."""
    found = _LIST_ITEM.match(line)
    return found.group() if found else ""


def sentences(text: str) -> list[str]:
    """Sentences with their closing marks.

    A sentence ends at . ! ? … before a space and at 。！？ anywhere, at the end of a paragraph and
    before a list item or heading. It does not end after "Dr.", "e.g." or inside "3.5".
    """
    found: list[str] = []
    for block in _prose_blocks(text):
        start = 0
        for end in _END.finditer(block):
            if _is_abbreviation(block, end):
                continue
            found.append(block[start : end.end()].strip())
            start = end.end()
        found.append(block[start:].strip())
    return [sentence for sentence in found if re.search(r"[^\W_]", sentence)]


def _prose_blocks(text: str) -> list[str]:
    """Paragraphs, list items and headings, each as one line; a heading ends with its line."""
    blocks: list[list[str]] = []
    for paragraph in paragraphs(text):
        alone = True
        for line in paragraph.split("\n"):
            marker = list_marker(line)
            if alone or marker or _is_rule(line):
                blocks.append([])
            blocks[-1].append(line[len(marker) :])
            alone = marker.startswith("#") or _is_rule(line)
    return [" ".join(block) for block in blocks]


def _is_rule(line: str) -> bool:
    return len(line) >= 3 and not line.strip("*-_= ")


def _is_abbreviation(block: str, end: re.Match[str]) -> bool:
    if end.group() != ".":
        return False
    token = _ABBREVIATION.search(block[max(0, end.start() - 14) : end.end()])
    if token is None:
        return False
    word = token.group(1)
    if word.lower() in _BEFORE_NAME or (len(word) == 1 and word.isupper() and word != "I"):
        return end.end() < len(block)
    following = block[end.end() : end.end() + 2].strip()
    return word.lower() in _BEFORE_MORE and bool(following) and not following[0].isupper()
