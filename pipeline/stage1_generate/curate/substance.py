"""Does an answer say anything? The two rules of Evol-Instruct (2304.12244) about answers."""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import words

SHORT = 80  # words; in a longer answer "sorry" is a word like others
_SORRY = re.compile(
    r"\b(?:sorry|apologi[sz]e|apologies)\b|抱歉|对不起|无法(?:回答|提供|完成)", re.I
)
_CHINESE = frozenset("的了是在和与或也都就这那吗呢吧啊之其而且但")


def substance() -> Filter:
    """Drop short answers with an apology, and answers of stop words and punctuation alone.

    The paper takes both as signs that the instruction cannot be answered.
    """

    def check(row: Candidate) -> Verdict:
        text = row.generation.text
        if apologises(text):
            return drop("substance", "a short answer with an apology")
        if not any(word not in _stop_words() for word in words(text)):
            return drop("substance", "stop words and punctuation alone")
        return keep("substance")

    return check


def apologises(text: str) -> bool:
    return _SORRY.search(text) is not None and len(words(text)) < SHORT


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | _CHINESE
