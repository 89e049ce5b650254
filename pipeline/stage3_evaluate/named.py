"""Which one of some names an answer comes to: yes or no, True or False, options by their text.

Rules, in this order; the first that yields one wins:

1. the last explicit statement ("The answer is no"), unless the text takes it back afterwards;
2. a last line that is a name and nothing else;
3. the last sentence's conclusion ("so yes", "..., which is False");
4. a first line that begins with a name ("Yes, because ...");
5. the only name that the last sentence mentions (not for everyday words such as "no").

"Yes or no" is none of them. A text that was cut off counts by 1 and 4 alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.number_words import BOX_OPEN
from pipeline.stage3_evaluate.statements import (
    CUT,
    DECLINED,
    NOTHING,
    Read,
    cleaned,
    sentences,
    statements,
    taken_back,
    without_half,
)

YES_NO = {
    "yes": ("yes", "yeah", "yep", "是的", "是", "对"),
    "no": ("no", "nope", "不是", "否", "不"),
}
TRUE_FALSE = {"true": ("true", "正确"), "false": ("false", "错误")}

_OPENS = (
    rf"[\s\"'“‘(\[{{*_:{BOX_OPEN}-]{{0,8}}"
    r"(?:(?:the|an?|that|it is|simply)\s+){0,3}[\"'“‘(\[]{0,3}"
)
_DENIES = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|不是|并非|非)\s*(?:really\s+)?(?:an?\s+|the\s+)?[\"'“‘(]*$",
    re.IGNORECASE,
)
_CONCLUDES = (
    r"(?:\b(?:so|therefore|thus|hence|is|are|was|be|means|evaluates to|gives|says|becomes)\b"
    r"|[=:→]|->)"
)
_DOUBTS = re.compile(
    r"\b(?:whether|may|might|maybe|perhaps|could be|not sure|unsure|it depends"
    r"|(?:i|we|you|one) (?:don't|do not|cannot|can't) (?:know|tell|say))\b",
    re.IGNORECASE,
)
_SHORT = 5  # words of a sentence whose last word may be the answer: "I'd say no."
_LONGEST = 500  # characters of a line or a sentence; keeps hostile texts quick
_FORMS = tuple[tuple[str, tuple[str, ...]], ...]


def extract_named(
    text: str, names: Mapping[str, Sequence[str]], finish: Finish, *, everyday: bool = False
) -> Read:
    """The name that an answer comes to; `names` maps each to the forms in which it is written.

    `everyday`: the forms are words of any text, so that a mere mention of one says nothing.
    """
    if finish is Finish.ERROR:
        return NOTHING
    reader = _reader(tuple((name, tuple(forms)) for name, forms in names.items()))
    cut = finish is Finish.LENGTH
    clean = cleaned(text, cut=cut)
    # A name that ends where the text was cut may be half a word.
    whole = without_half(clean) if cut and text[-1:].isalnum() else clean
    name = reader.read(whole, cut=cut, everyday=everyday)
    if name is not None:
        return Extraction.VALUE, name
    return CUT if cut else NOTHING


class _Reader:
    def __init__(self, names: _FORMS) -> None:
        self._of = {form.casefold(): name for name, forms in names for form in forms}
        ordered = sorted(self._of, key=len, reverse=True)
        body = "|".join(
            (r"(?<!\w)" if form[:1].isascii() else "")
            + r"\s+".join(re.escape(word) for word in form.split())
            + (r"(?![\w-]|'\w)" if form[-1:].isascii() and form[-1:].isalnum() else "")
            for form in ordered
        )
        self._any = re.compile(body, re.IGNORECASE)
        self._first = re.compile(rf"{_OPENS}({body})", re.IGNORECASE)
        self._hedge = re.compile(
            rf"[\"'”’)\]\s,]*(?:\bor\b|\band\b|/|或者?|还是)\s*(?:\bmaybe\s+|\bpossibly\s+)?{_OPENS}(?:{body})",
            re.IGNORECASE,
        )
        self._closing = re.compile(
            rf"(?:{_CONCLUDES}|,)[\s:]*{_OPENS}({body})[\"'”’)\]\s.!。]*$", re.IGNORECASE
        )
        self._ending = re.compile(rf"({body})[\"'”’)\]\s.!。]*$", re.IGNORECASE)
        drawn = r"\b(?:so|therefore|thus|hence|in conclusion|in short|overall)\b|所以|因此"
        self._drawn = re.compile(rf"(?:{drawn})[\s,:]*{_OPENS}({body})", re.IGNORECASE)
        self._opposite = _opposites([name for name, _ in names])

    def read(self, clean: str, *, cut: bool, everyday: bool) -> str | None:
        stated: tuple[str, int] | None = None
        hedged = False
        for statement in statements(clean):
            found = self.at(statement.rest)
            if found is not None:
                stated, hedged = (found, statement.start), False
            elif re.match(r"either\b", statement.rest, re.I) or self._hedged(statement.rest):
                stated, hedged = None, True
        if stated is not None:
            revised = taken_back(clean, stated[1])
            if revised is None:
                return stated[0]
            clean = clean[revised:].lstrip(" ,.:")
        if hedged:
            return None
        return self._unstated(clean, cut=cut, everyday=everyday)

    def at(self, rest: str) -> str | None:
        """The name that `rest` begins with, hedges apart: "B", "not X but Y" is Y."""
        denied = re.match(r"\W*not\b", rest, re.IGNORECASE)
        if denied:
            but = re.match(r"[^.\n]{0,80}?\b(?:but|it is|it's)\b", rest[denied.end() :], re.I)
            turned = self._first.match(rest, denied.end())
            if but is None:
                return self._opposite.get(self._name(turned)) if turned else None
            rest = rest[denied.end() + but.end() :]
        first = self._first.match(rest)
        if first is None or self._hedge.match(rest, first.end()):
            return None
        return self._name(first)

    def _hedged(self, rest: str) -> bool:
        first = self._first.match(rest)
        return first is not None and self._hedge.match(rest, first.end()) is not None

    def _name(self, match: re.Match[str]) -> str:
        return self._of[" ".join(match.group(1).casefold().split())]

    def _unstated(self, clean: str, *, cut: bool, everyday: bool) -> str | None:
        lines = [line.strip() for line in clean.splitlines() if line.strip()]
        if not lines:
            return None
        lines = [lines[0][:_LONGEST], lines[-1][:_LONGEST]]
        if not cut and (name := self._bare(lines[-1])) is not None:
            return name
        last = (sentences(clean[-4 * _LONGEST :]) or [""])[-1][-_LONGEST:]
        if not cut and not last.endswith("?") and not _DOUBTS.search(last):
            if (name := self._concluded(last)) is not None:
                return name
            if (name := self._leads(last, everyday=everyday)) is not None:
                return name
        if (name := self._leads(lines[0], everyday=everyday)) is not None:
            return name
        doubted = last.endswith("?") or _DOUBTS.search(last) or DECLINED.search(last)
        if cut or everyday or doubted:
            return None
        return self._only(last)

    def _bare(self, line: str) -> str | None:
        first = self._first.match(line)
        if first is None or re.search(r"\w", line[first.end() :]):
            return None
        return self._name(first)

    def _concluded(self, sentence: str) -> str | None:
        """What the sentence's "so ..." or its last words come to."""
        for pattern in (self._closing, self._drawn):
            found = next(reversed(list(pattern.finditer(sentence))), None)
            if found is None or self._hedge.match(sentence, found.end(1)):
                continue
            before = sentence[: found.start(1)]
            if found.group()[0] in ",:" and self._names_another(before, self._name(found)):
                continue  # "Ann: red, Bo: blue" goes through them
            if _DENIES.search(before):
                return self._opposite.get(self._name(found))
            if self._any.search(before) and re.search(r"\b(?:or|whether)\W*$", before):
                continue
            return self._name(found)
        ends = self._ending.search(sentence) if len(sentence.split()) <= _SHORT else None
        if ends is None or _DENIES.search(sentence[: ends.start(1)]) or self._hedged_end(sentence):
            return None
        return self._name(ends)

    def _hedged_end(self, sentence: str) -> bool:
        return (
            len({self._of[" ".join(m.split()).casefold()] for m in self._any.findall(sentence)}) > 1
        )

    def _names_another(self, before: str, name: str) -> bool:
        """Whether a name stands there that is no everyday word, such as the "no" of "no flips"."""
        said = (" ".join(word.split()).casefold() for word in self._any.findall(before))
        return any(self._of[word] != name for word in said if word not in ("no", "yes"))

    def _leads(self, line: str, *, everyday: bool) -> str | None:
        """ "Yes, because ...", "valid - it follows"; an everyday word needs a mark behind it."""
        first = self._first.match(line)
        if first is None or self._hedge.match(line, first.end()):
            return None
        mark = r"\s*(?:[,.!:;(\n。]|-\s|$|(?:because|since|as|it|they|the|this)\b)"
        if not everyday:
            mark = r"\s*(?:[.!:;(\n。]|-\s|$|(?:because|since|as)\b)"
        return self._name(first) if re.match(mark, line[first.end() :], re.I) else None

    def _only(self, sentence: str) -> str | None:
        said: set[str] = set()
        for match in self._any.finditer(sentence):
            name = self._of[" ".join(match.group().casefold().split())]
            if re.search(r"\(\s*$", sentence[: match.start()]):
                return None  # "not ( True ) and ( True )" is an expression
            if not _DENIES.search(sentence[max(0, match.start() - 24) : match.start()]):
                said.add(name)
            elif name in self._opposite:
                said.add(self._opposite[name])
        return said.pop() if len(said) == 1 else None


def _opposites(names: Sequence[str]) -> dict[str, str]:
    """Of two names that exclude each other, each one's other: true and false, valid and invalid."""
    if len(names) != 2:
        return {}
    one, two = sorted((name.casefold() for name in names), key=len)
    if (one, two) == ("true", "false") or two in {f"{part}{one}" for part in ("in", "un", "non-")}:
        return {names[0]: names[1], names[1]: names[0]}
    return {}


@lru_cache(maxsize=1024)
def _reader(names: _FORMS) -> _Reader:
    return _Reader(names)


def named_at(rest: str, names: Mapping[str, Sequence[str]]) -> str | None:
    """The name that some words begin with."""
    return _reader(tuple((name, tuple(forms)) for name, forms in names.items())).at(rest)
