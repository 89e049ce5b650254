"""Answers in words: letters joined together ("nk"), a list of words, a word or a short phrase.

The last explicit statement counts, unless the text takes it back; else a first or last line that
is nothing but an answer, and for letters and lists what "gives", "sorted:" or "=" lead to. A text
that was cut off counts only by a statement or a first line that something follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.choices import plain
from pipeline.stage3_evaluate.number_words import BOX_CLOSE, BOX_OPEN
from pipeline.stage3_evaluate.statements import (
    CUT,
    DECLINED,
    NOTHING,
    VERB,
    Read,
    cleaned,
    first_sentence,
    sentences,
    statements,
    taken_back,
)

_Reader = Callable[[str, bool], str | None]  # words, whether they were cut -> answer

_QUOTE = "\"'“”‘’`"
_SINGLE = rf"[A-Za-z](?:[{_QUOTE}]?[\s,.+-]{{1,3}}(?:and\s)?[{_QUOTE}]?[A-Za-z](?![A-Za-z]))+"
_LETTERS = re.compile(
    rf"[\s:({_QUOTE}\[]*(?P<said>{_SINGLE}(?![A-Za-z])|[A-Za-z]{{1,40}})"
    rf"(?=[{_QUOTE})\]\s]*(?:$|[.,;:!?(}}{BOX_CLOSE}\n。]|-\s|because\b|since\b|not\b))"
)
_QUOTED = re.compile(
    rf"\s*[{_QUOTE}](?P<said>{_SINGLE}|[A-Za-z]{{1,40}})[{_QUOTE}](?!\s*(?:or|and|\+|,)\b)"
)
_SAID_FIRST = re.compile(
    rf"(?:^|[.!?\n]\s*)(?:so\s+)?[{_QUOTE}]?([A-Za-z]{{1,40}})[{_QUOTE}]? is (?:the|my) "
    r"(?:final |correct )?(?:answer|result)\b",
    re.IGNORECASE,
)
_EITHER = re.compile(
    rf"\W*either\b|[\s{_QUOTE}]*[A-Za-z]{{1,40}}[{_QUOTE}]*,?\s+or\b", re.IGNORECASE
)
_JOINED = re.compile(
    rf"\b(?:concatenat\w*|result|output|string|word|joined|together|combin\w+)\b[^.\n{_QUOTE}]{{0,40}}?"
    rf"(?:{VERB}\s*:?|\bgives?\b|\bwe get\b|[:=])"
    rf"|\b(?:gives?|giving|have|get|forms?|makes?|spells?|should be|must be)\s+(?=[{_QUOTE}])"
    r"|\b(?:should|must) be\s|(?:=>|->|→|=)(?=[^=\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_SORTED = re.compile(
    rf"\b(?:sort(?:ed|ing)|order(?:ed)?|alphabetically|words|list)\b[^.\n:]{{0,40}}?(?:{VERB}\s*:?|:)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.)])\s+")
_LONGEST = 4000  # characters of a list
_ITEM = re.compile(r"[^\s,;<>\[\]]+")
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


def extract_letters(text: str, finish: Finish) -> Read:
    """Letters joined together, lower case: "nk" for "N, K", "n-k", "n + k = nk"."""
    return _extract(text, finish, _letters, _JOINED, _is_letters)


def extract_words(text: str, finish: Finish) -> Read:
    """A list of words in one line, lower case, one space between: "barn damp prod"."""
    return _extract(text, finish, _list, _SORTED, _is_list)


def extract_text(text: str, finish: Finish) -> Read:
    """A word or a short phrase as it was written, without marks around it."""
    return _extract(text, finish, _phrase, None, _is_phrase)


def same_text(a: str, b: str) -> bool:
    """Two phrases that are equal but for case, articles, and marks around them."""
    return _ARTICLE.sub("", plain(a)) == _ARTICLE.sub("", plain(b))


def words_of(text: str) -> list[str]:
    """The words of a list in any form: commas, lines, bullets, brackets, "<" between them."""
    lines = [_BULLET.sub("", line) for line in re.sub(r"->|=>|→", "<", text).splitlines()]
    lines = [re.sub(r"\s\(?\d{1,3}[.)]\s", ", ", line) for line in lines]
    joined = re.sub(rf"(^|[\s\[,])[{_QUOTE}]+|[{_QUOTE}]+(?=$|[\s\],.;])", r"\1", "\n".join(lines))
    if re.search(r"[,;\n<]", joined.strip()):
        joined = re.sub(r"[,;\n]\s*and\s+|\s+and\s+(?=[^\s,]+\W*$)", ", ", joined)
    found = (re.sub(r"^[*_]+|[.!*_:。]+$", "", word) for word in _ITEM.findall(joined))
    return [word.casefold() for word in found if word]


def _extract(
    text: str, finish: Finish, at: _Reader, more: re.Pattern[str] | None, bare: _Reader
) -> Read:
    if finish is Finish.ERROR:
        return NOTHING
    cut = finish is Finish.LENGTH
    clean = cleaned(text, cut=cut)
    found = _stated(clean, cut, at, more, bare)
    if found is not None:
        return Extraction.VALUE, found
    return CUT if cut else NOTHING


def _stated(
    clean: str, cut: bool, at: _Reader, more: re.Pattern[str] | None, bare: _Reader
) -> str | None:
    last: tuple[str, int] | None = None
    for statement in statements(clean):
        to_the_end = statement.start + len(statement.rest) >= len(clean)
        said = at(statement.rest, cut and to_the_end)
        if said is not None:
            last = said, statement.start
        elif _EITHER.match(statement.rest):
            return None
    if last is not None:
        revised = taken_back(clean, last[1])
        if revised is None:
            return last[0]
        clean = clean[revised:].lstrip(" ,.:")
        found = _unstated(clean, cut, at, more, bare)
        return found if found is not None else None
    return _unstated(clean, cut, at, more, bare)


def _unstated(
    clean: str, cut: bool, at: _Reader, more: re.Pattern[str] | None, bare: _Reader
) -> str | None:
    found = bare(clean, cut)
    if found is not None or more is None:
        return found
    # Only marks of this kind: a statement that said nothing readable is behind us.
    for match in reversed(list(more.finditer(clean))[-40:]):
        said = at(clean[match.end() :].lstrip(), cut)
        if said is not None:
            return said
    return None


def _letters(rest: str, cut: bool) -> str | None:
    but = re.match(r"\W*not\b[^.\n]{0,40}?\b(?:but|it is|it's)\s", rest, re.IGNORECASE)
    rest = rest[but.end() :] if but else rest
    if _EITHER.match(rest):
        return None
    equal = re.match(rf"[^\n.]{{0,200}}(?:=>|->|→|=)\s*(?=[{_QUOTE}]?[A-Za-z])", rest)
    start = equal.end() if equal else 0
    found = _LETTERS.match(rest, start) or _QUOTED.match(rest, start)
    if found is None or (cut and found.end("said") == len(rest)):
        return None
    return re.sub(r"[^a-z]|\band\b", "", found["said"].casefold())


def _is_letters(clean: str, cut: bool) -> str | None:
    lines = [line.strip() for line in clean.splitlines() if line.strip()]
    for line in dict.fromkeys([*lines[-1:], *lines[:1]] if not cut else lines[:1]):
        found = _LETTERS.match(line)
        if found is None or (cut and len(lines) == 1):
            continue
        rest = line[found.end("said") :].lstrip(_QUOTE + " )].!")
        if not rest or rest.startswith("("):
            return _letters(line, False)
    said = _SAID_FIRST.search(clean)
    return said[1].casefold() if said else None


def _list(rest: str, cut: bool) -> str | None:
    """The list that `rest` starts with: of the same line, or of the bullets of the next lines."""
    block: list[str] = []
    ended = False
    for line in rest.splitlines():
        bullet = _BULLET.match(line) is not None
        if not line.strip() or (block and not bullet and not _BULLET.match(block[0])):
            ended = ended or bool(block)
            if block:
                break
            continue
        if block and not bullet:
            ended = True
            break
        block.append(line)
    if not block or (cut and not ended and not re.search(r"[.!](?=\s)", block[-1])):
        return None
    text = "\n".join(block) if len(block) > 1 else first_sentence(block[0])
    found = words_of(text[:_LONGEST].split(BOX_CLOSE)[0].replace(BOX_OPEN, ""))
    return " ".join(found) or None


def _is_list(clean: str, cut: bool) -> str | None:
    lines = [line for line in clean.splitlines() if line.strip()]
    if cut or not lines or len(clean) > _LONGEST or DECLINED.search(clean):
        return None
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
        clean = "\n".join(lines)
    marked = [line for line in lines if _BULLET.match(line)]
    if len(marked) > 1:
        return " ".join(words_of("\n".join(marked)))
    single = all(re.fullmatch(r"\s*\S+\s*", line) for line in lines)
    comma = len(lines) == 1 and re.fullmatch(
        r"\W*[^\s,]+(?:(?:,\s*(?:and\s+)?|\s*<\s*)[^\s,]+)+(?:\s+and\s+\S+)?\W*", lines[0]
    )
    plain_line = len(lines) == 1 and not re.search(r"[.!?:]\s*$", lines[0]) and ":" not in lines[0]
    return " ".join(words_of(clean)) if single or comma or plain_line else None


def _phrase(rest: str, cut: bool) -> str | None:
    said = first_sentence(rest).split(BOX_CLOSE)[0]
    if cut and len(said) == len(rest):
        return None
    said = re.split(r",?\s+(?:because|since)\b|\s\(", said)[0].strip(f" {_QUOTE}*_")
    return said if said and len(said) <= 200 else None


def _is_phrase(clean: str, cut: bool) -> str | None:
    lines = [line.strip() for line in clean.splitlines() if line.strip()]
    if cut or not lines or DECLINED.search(clean):
        return None
    quoted = re.findall(r"[\"“]([^\"“”]{1,80})[\"”]", lines[-1])
    if len(quoted) == 1:
        return str(quoted[0]).strip()
    last = re.sub(r"^(?:it|that|this)(?:'s| is| was)\s+", "", lines[-1], flags=re.IGNORECASE)
    return (
        last.strip(f" {_QUOTE}*_.") if len(last.split()) <= 6 and len(sentences(last)) < 2 else None
    )
