"""Overlap of a training row with any evaluation item. On by default.

Three ways to be the same:

    n-grams    a run of n words of an item stands in the row; a shorter item, of four words or more,
               counts whole. Words are lower-case, without punctuation; a Chinese character is a
               word. Only what belongs to the item counts: the worked examples of a prompt are the
               same for every item and are no part of it.
    question   the seed's question is the item's, however short; signs of arithmetic count.
    episode    the seed asks an in-context item's query after the same shots, in any order, as many
               as the item can be asked with. The query alone, where it has under four words, is
               no overlap: the same word is asked about in many episodes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from pipeline.records import Seed, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import words

SHORTEST = 4  # words; fewer ("Say hello.") would be found in rows that have nothing of the item

_SAME = re.compile(r"[^\W_]+|[-+*/%^=<>×÷−]")

Gram = tuple[str, ...]
Episode = tuple[frozenset[tuple[str, str]], str]  # shots as (text, label), query


def contamination(items: Iterable[Seed], ngram: int = 13) -> Filter:
    """Drop rows that overlap with `items`. Score: the share of the item's n-grams in the row."""
    grams: dict[Gram, str] = {}
    questions: dict[str, str] = {}
    episodes: dict[Episode, str] = {}
    whole: dict[str, set[Gram]] = {}  # all n-grams of an item, for the score
    for item in items:
        question, shots = str(item.fields["question"]), _shots(item)
        found = _grams(_tokens(question), ngram)
        # Not in shorter runs: a shot or two of common words are in many episodes.
        found += _runs(_tokens(_in_a_row(shots)), ngram)
        whole.setdefault(item.id, set()).update(found)
        for gram in found:
            grams.setdefault(gram, item.id)
        if not shots:
            questions.setdefault(_same(question), item.id)
        for k in range(1, len(shots) + 1):  # an evaluation shows the first k of them
            episodes.setdefault(_episode(shots[:k], question), item.id)
    sizes = sorted({len(gram) for gram in grams}, reverse=True)

    def check(row: Candidate) -> Verdict:
        question, shots = str(row.seed.fields.get("question", "")), _shots(row.seed)
        shown = shots[: row.seed.fields.get("student_shots", len(shots))]
        texts = [m.content for m in (*row.example.prompt, *row.example.completion)]
        # A prompt puts words of its own between the shots.
        tokens = [_tokens(text) for text in (*texts, _in_a_row(shown))]
        for gram in (g for size in sizes for part in tokens for g in _runs(part, size)):
            if (item_id := grams.get(gram)) is not None:
                held = {g for part in tokens for g in _runs(part, len(gram))} & whole[item_id]
                share = round(len(held) / len(whole[item_id]), 3)
                span = " ".join(gram)
                return drop("contamination", f"evaluation item {item_id}: “{span}”", share)
        for seen in (shots, shown):
            if seen and (item_id := episodes.get(_episode(seen, question))):
                return drop("contamination", f"evaluation item {item_id}: the same episode", 1.0)
        if not shots and (item_id := questions.get(_same(question))):
            return drop("contamination", f"evaluation item {item_id}: the same question", 1.0)
        return keep("contamination")

    return check


def _tokens(text: str) -> list[str]:
    return words(unicodedata.normalize("NFKC", text))


def _runs(tokens: list[str], size: int) -> list[Gram]:
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def _grams(tokens: list[str], ngram: int) -> list[Gram]:
    """Runs of `ngram` words, or the whole of a shorter text that has enough of them."""
    size = min(ngram, len(tokens))
    return _runs(tokens, size) if size >= min(SHORTEST, ngram) else []


def _same(text: str) -> str:
    """A form that is equal for texts that differ in case, spacing and punctuation alone."""
    found = _SAME.findall(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(found) or text.strip()


def _shots(seed: Seed) -> list[dict[str, Any]]:
    """The labelled shots of an in-context episode; worked examples of another form are none."""
    shots = seed.fields.get("shots")
    if not isinstance(shots, list):
        return []
    return [s for s in shots if isinstance(s, dict) and "text" in s and "label" in s]


def _in_a_row(shots: Iterable[dict[str, Any]]) -> str:
    return " ".join(f"{shot['text']} {shot['label']}" for shot in shots)


def _episode(shots: Iterable[dict[str, Any]], query: str) -> Episode:
    pairs = frozenset((_same(str(s["text"])), _same(str(s["label"]))) for s in shots)
    return pairs, _same(query)
