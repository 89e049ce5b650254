"""When two questions, and two in-context episodes, are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from pipeline.records import Seed

_SAME = re.compile(r"[^\W_]+|[-+*/%^=<>×÷−()]")

Episode = tuple[frozenset[tuple[str, str]], str]  # shots as (text, label), query


def same_form(text: str) -> str:
    """A form that is equal for texts that differ in case, spacing and punctuation alone."""
    found = _SAME.findall(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(found) or text.strip()


def shots_of(seed: Seed) -> list[dict[str, Any]]:
    """The labelled shots of an in-context episode; worked examples of another form are none."""
    shots = seed.fields.get("shots")
    if not isinstance(shots, list):
        return []
    return [s for s in shots if isinstance(s, dict) and "text" in s and "label" in s]


def in_a_row(shots: Iterable[dict[str, Any]]) -> str:
    return " ".join(f"{shot['text']} {shot['label']}" for shot in shots)


def episode(shots: Iterable[dict[str, Any]], query: str) -> Episode:
    pairs = frozenset((same_form(str(s["text"])), same_form(str(s["label"]))) for s in shots)
    return pairs, same_form(query)
