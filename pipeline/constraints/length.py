"""Length: how many words, sentences, paragraphs or lines."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.constraints.kinds import Check, Kind, Param, Params, one_of, verdict
from pipeline.constraints.text_units import lines, paragraphs, sentences, words

COUNT = {"count": Param.COUNT}
LENGTH = frozenset({"length"})
SENTENCES = frozenset({"length", "sentences"})


def at_least(unit: Callable[[str], list[str]]) -> Callable[[Params, str], Check]:
    return lambda params, text: _compare(len(unit(text)), params["count"], "at least")


def at_most(unit: Callable[[str], list[str]]) -> Callable[[Params, str], Check]:
    return lambda params, text: _compare(len(unit(text)), params["count"], "at most")


def exactly(unit: Callable[[str], list[str]]) -> Callable[[Params, str], Check]:
    return lambda params, text: _compare(len(unit(text)), params["count"], "exactly")


def _compare(seen: int, asked: int, how: str) -> Check:
    followed = {"at least": seen >= asked, "at most": seen <= asked, "exactly": seen == asked}[how]
    return verdict(followed, f"{seen} seen, {how} {asked} asked for")


def check_short_sentences(params: Params, text: str) -> Check:
    longest = max((len(words(sentence)) for sentence in sentences(text)), default=0)
    return verdict(
        longest <= params["count"],
        f"the longest sentence has {longest} words, at most {params['count']} asked for",
    )


KINDS = (
    Kind(
        "min_words",
        "length",
        COUNT,
        at_least(words),
        one_of(40, 50, 60, 80),
        {
            "en": (
                "Use at least {count:word}.",
                "Write {count:word} or more.",
                "Your answer should have at least {count:word}.",
            ),
            "zh": ("至少写{count}个字。", "回答不要少于{count}个字。"),
        },
        slots=LENGTH,
    ),
    Kind(
        "max_words",
        "length",
        COUNT,
        at_most(words),
        one_of(15, 20, 25, 30, 40),
        {
            "en": (
                "Use at most {count:word}.",
                "Answer in {count:word} or fewer.",
                "Do not write more than {count:word}.",
            ),
            "zh": ("最多写{count}个字。", "回答不要超过{count}个字。"),
        },
        slots=LENGTH,
        breaks_on_fragment=True,
    ),
    Kind(
        "exact_words",
        "length",
        COUNT,
        exactly(words),
        one_of(3, 4, 5, 6, 8),
        {
            "en": ("Use exactly {count:word}.", "Your answer must have exactly {count:word}."),
            "zh": ("恰好写{count}个字。", "回答必须正好是{count}个字。"),
        },
        slots=SENTENCES | {"layout"},
    ),
    Kind(
        "min_sentences",
        "length",
        COUNT,
        at_least(sentences),
        one_of(3, 4, 5),
        {
            "en": ("Write at least {count:sentence}.", "Use {count:sentence} or more."),
            "zh": ("至少写{count}句话。", "回答不要少于{count}句话。"),
        },
        slots=SENTENCES,
    ),
    Kind(
        "max_sentences",
        "length",
        COUNT,
        at_most(sentences),
        one_of(1, 2),
        {
            "en": ("Write at most {count:sentence}.", "Use no more than {count:sentence}."),
            "zh": ("最多写{count}句话。", "回答不要超过{count}句话。"),
        },
        slots=SENTENCES,
        breaks_on_fragment=True,
    ),
    Kind(
        "exact_sentences",
        "length",
        COUNT,
        exactly(sentences),
        one_of(1, 2, 3),
        {
            "en": ("Write exactly {count:sentence}.", "Answer in exactly {count:sentence}."),
            "zh": ("正好写{count}句话。", "请用恰好{count}句话回答。"),
        },
        slots=SENTENCES,
    ),
    Kind(
        "exact_paragraphs",
        "length",
        COUNT,
        exactly(paragraphs),
        one_of(2, 3),
        {
            "en": (
                "Write exactly {count:paragraph} with a blank line between them.",
                "Your answer must have {count:paragraph}, separated by blank lines.",
            ),
            "zh": ("正好写{count}段，段与段之间空一行。", "回答要分成{count}段，用空行隔开。"),
        },
        slots=LENGTH | {"layout"},
    ),
    Kind(
        "exact_lines",
        "length",
        COUNT,
        exactly(lines),
        one_of(2, 3, 4),
        {
            "en": ("Write exactly {count:line}.", "Your answer must have exactly {count:line}."),
            "zh": ("正好写{count}行。", "回答必须恰好有{count}行。"),
        },
        slots=LENGTH | {"layout"},
    ),
    Kind(
        "short_sentences",
        "length",
        COUNT,
        check_short_sentences,
        one_of(8, 10, 12),
        {
            "en": (
                "No sentence may have more than {count:word}.",
                "Keep every sentence to {count:word} or fewer.",
            ),
            "zh": ("每句话不要超过{count}个字。", "每一句最多{count}个字。"),
        },
        slots=SENTENCES,
    ),
)
