"""Overlap of a training row with any evaluation item: exact, and by n-grams. On by default.

Words are lower-case, without punctuation; a Chinese character is a word. An item shorter than n
words is matched whole. Only what belongs to the item counts: the worked examples of a prompt are
the same for every item and are no part of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import words

SHORTEST = 4  # words; a shorter item ("Say hello.") would match everything


def _tokens(text: str) -> list[str]:
    return words(unicodedata.normalize("NFKC", text))


def contamination(items: Iterable[tuple[str, str]], ngram: int = 13) -> Filter:
    """`items`: (id, text) of every evaluation item. Score: share of the item's n-grams matched."""
    grams: dict[tuple[str, ...], str] = {}
    sizes: set[int] = set()
    for item_id, text in items:
        tokens = _tokens(text)
        size = min(ngram, len(tokens))
        if size < SHORTEST:
            continue
        sizes.add(size)
        for i in range(len(tokens) - size + 1):
            grams.setdefault(tuple(tokens[i : i + size]), item_id)

    def check(row: Candidate) -> Verdict:
        texts = [m.content for m in (*row.example.prompt, *row.example.completion)]
        for text in texts:
            tokens = _tokens(text)
            for size in sizes:
                for i in range(len(tokens) - size + 1):
                    item_id = grams.get(tuple(tokens[i : i + size]))
                    if item_id is not None:
                        span = " ".join(tokens[i : i + size])
                        return drop("contamination", f"evaluation item {item_id}: “{span}”", size)
        return keep("contamination")

    return check
