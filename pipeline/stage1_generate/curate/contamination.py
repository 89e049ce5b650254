"""Overlap of a training row with any evaluation item. On by default.

Ways to be the same, looked for in this order:

    exact      all words of the item stand in the row, one after the other. An item of four to
               seven words must stand there as a sentence of its own; one with fewer must be the
               seed's whole question, where signs of arithmetic count.
    n-gram     a run of `ngram` (13) words of the item.
    8-grams    half of the item's runs of 8 words (`SHARE`). A single one is no sign: "how much
               money does she make in a week" is in many problems that have nothing in common.
    episode    the seed asks an in-context item's query after the same shots, in any order, as many
               as the item can be asked with. The query alone, where it has under four words, is
               no overlap: the same word is asked about in many episodes.
    near copy  Jaccard similarity >= 0.8 of the item's words and those of the stretch of the row
               beside it, in order: one of nine words may be another one. Items of nine words up.
    numbers or names changed
               the same similarity after numbers and names are masked (contamination_index.py), for
               items that hold a number.

Words are lower-case, without punctuation; a Chinese character is a word. Only what belongs to the
item counts: runs that three items of a set share are its pattern or its instructions, and the
worked examples of a prompt are no part of an item. Where items of a set are near copies of one
another by one of the last two measures (more than 2 % of them: a generator made them), that
measure says nothing about the set and is left out for it. Measured false hits: docs/results.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
import numpy as np

from pipeline.records import Example, Seed, Verdict
from pipeline.stage1_generate.curate import Candidate, drop, keep
from pipeline.stage1_generate.curate.contamination_index import Meetings
from pipeline.stage1_generate.curate.contamination_items import (
    SHORTEST,
    SIMILAR,
    Items,
    Piece,
)
from pipeline.stage1_generate.curate.episodes import episode, in_a_row, same_form, shots_of
from pipeline.stage1_generate.curate.word_hashes import BREAK, Places, Runs, Words, words_of

SHARE = 0.5
SENTENCE = 8  # words; an item with fewer counts only as a sentence of its own
SHOWN = 40  # words of a span

_BEFORE = re.compile(r"(?:^|[.!?:;\n\x1e。！？：；])[\s*_#>(\"'“‘「『]*$")
_AFTER = re.compile(r"[\s*_\"'”’」』)]*(?:[.!?:;\n\x1e。！？：；=]|$)")


class Match(StrEnum):
    """How a row is the same as an item."""

    EXACT = "exact"
    NGRAM = "n-gram"
    EIGHTS = "8-grams"
    EPISODE = "episode"
    NEAR = "near copy"
    MASKED = "numbers or names changed"


class Hit(msgspec.Struct, frozen=True):
    """An item that a row overlaps with. `score`: share of the item's runs, or the similarity."""

    item: str
    kind: Match
    span: str
    score: float

    @property
    def reason(self) -> str:
        return f"{self.kind}: evaluation item {self.item}: “{self.span}”"


class Contamination:
    """The filter: drops rows that overlap with `items`. Score: see `Hit`.

    alike: also near copies, and copies with other numbers or names; never for the sets (`task`s)
    named in `made`, whose items a generator makes by a pattern.
    """

    def __init__(
        self,
        items: Iterable[Seed],
        ngram: int = 13,
        alike: bool = True,
        made: frozenset[str] = frozenset(),
    ) -> None:
        self._items = Items(list(items), ngram, alike, made)

    def __call__(self, row: Candidate) -> Verdict:
        hit = self.find(row.seed, row.examples or (row.example,))
        return drop("contamination", hit.reason, hit.score) if hit else keep("contamination")

    def find(self, seed: Seed, examples: Sequence[Example]) -> Hit | None:
        """The item that the training rows of an answer overlap with."""
        shots = shots_of(seed)
        shown = shots[: seed.fields.get("student_shots", len(shots))]
        said = {m.content: None for e in examples for m in (*e.prompt, *e.completion)}
        texts = [*said]
        if shown:  # a prompt puts words of its own between the shots
            texts.append(in_a_row(shown))
        words = words_of(BREAK.join(texts))
        runs = Runs(words.hashes)
        return (
            self._by_runs(words, runs)
            or self._by_heads(words, runs)
            or self._by_question(seed, shots, shown)
            or self._by_likeness(words)
        )

    def _by_runs(self, words: Words, runs: Runs) -> Hit | None:
        met = self._items.runs.meet(runs.of(self._items.run))
        if not len(met):
            return None
        ngrams = self._items.ngrams.meet(runs.of(self._items.ngram))
        best: Hit | None = None
        for number in dict.fromkeys((*ngrams.items.tolist(), *met.items.tolist())):
            hit = self._of_piece(words, number, met.of(number), ngrams.of(number))
            if hit and hit.kind is Match.EXACT:
                return hit
            best = best or hit
        return best

    def _of_piece(self, words: Words, number: int, met: Meetings, ngrams: Meetings) -> Hit | None:
        items = self._items
        piece, pattern = items.pieces[number], bool(items.pattern[number])
        share = len(set(met.places.tolist())) / max(1, int(items.own_runs[number]))
        if piece.whole and share == 1.0:
            alone = pattern or len(piece.words) < SENTENCE
            if hit := _exact(words, piece, met, alone and len(piece.words) < items.ngram):
                return hit
        if len(ngrams):
            held = len(set(ngrams.places.tolist())) / int(items.own_ngrams[number])
            if held >= SHARE or not pattern:
                span = _span(words, ngrams.rows, items.ngram)
                return Hit(piece.item, Match.NGRAM, span, round(held, 3))
        if piece.whole and not pattern and share >= SHARE:
            span = _span(words, met.rows, items.run)
            return Hit(piece.item, Match.EIGHTS, span, round(share, 3))
        return None

    def _by_heads(self, words: Words, runs: Runs) -> Hit | None:
        met = self._items.heads.meet(runs.of(SHORTEST))
        for number in dict.fromkeys(met.items.tolist()):
            if hit := _exact(words, self._items.pieces[number], met.of(number), True):
                return hit
        return None

    def _by_question(
        self, seed: Seed, shots: list[dict[str, object]], shown: list[dict[str, object]]
    ) -> Hit | None:
        question = str(seed.fields.get("question", ""))
        for seen in (shots, shown):
            if seen and (item := self._items.episodes.get(episode(seen, question))):
                return Hit(item, Match.EPISODE, " ".join(question.split()), 1.0)
        if not shots and len(question) <= self._items.longest:
            form = same_form(question)
            if item := self._items.questions.get(form):
                return Hit(item, Match.EXACT, form, 1.0)
        return None

    def _by_likeness(self, words: Words) -> Hit | None:
        for like in self._items.like(words):
            piece = self._items.pieces[like.piece]
            for kind, on, score in (
                (Match.NEAR, self._items.near, like.words),
                (Match.MASKED, self._items.problem, like.masked),
            ):
                if on[like.piece] and score >= SIMILAR:
                    return Hit(
                        piece.item, kind, _shown(words, like.start, like.end), round(score, 3)
                    )
        return None


def _exact(words: Words, piece: Piece, met: Meetings, alone: bool) -> Hit | None:
    """All of the item's words in a row; `alone`: and no other words in that sentence."""
    length = len(piece.words)
    for start in np.unique(met.rows - met.places).tolist():
        end = start + length
        if start < 0 or not np.array_equal(words.hashes[start:end], piece.words.hashes):
            continue
        if not alone or _stands_alone(words, start, end, piece.words):
            return Hit(piece.item, Match.EXACT, _shown(words, start, end), 1.0)
    return None


def _stands_alone(words: Words, start: int, end: int, item: Words) -> bool:
    """A sentence of its own, with the item's signs ("not (a and b)" is not "not a and b")."""
    before = _BEFORE.search(words.text[: words.starts[start]][-20:])
    if not before or not _AFTER.match(words.text, int(words.ends[end - 1])):
        return False
    return same_form(words.text_of(start, end)) == same_form(item.text_of(0, len(item)))


def _span(words: Words, rows: Places, run: int) -> str:
    """The stretch that begins with the first of the runs at `rows`, in words."""
    places = np.unique(rows)
    gaps = np.flatnonzero(np.diff(places) > run)  # a changed word hides as many runs
    last = places[gaps[0]] if len(gaps) else places[-1]
    return _shown(words, int(places[0]), int(last) + run)


def _shown(words: Words, start: int, end: int) -> str:
    shown = words.show(start, min(end, start + SHOWN))
    return shown if end <= start + SHOWN else f"{shown} …"
