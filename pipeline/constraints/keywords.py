"""Keywords and letters that must, or must not, appear."""

from __future__ import annotations

import random
import re
from typing import Any

from pipeline.constraints.kinds import Check, Kind, Param, Params, verdict
from pipeline.constraints.text_units import HAN

# Words that fit into an answer on nearly any topic, so that the constraint asks for attention
# and not for a strained answer.
COMMON = {
    "en": (
        "people",
        "time",
        "important",
        "often",
        "because",
        "water",
        "world",
        "simple",
        "help",
        "different",
        "small",
        "best",
        "together",
        "learn",
        "always",
        "change",
        "free",
        "home",
    ),
    "zh": (
        "我们",
        "时间",
        "重要",
        "常常",
        "因为",
        "生活",
        "世界",
        "简单",
        "帮助",
        "不同",
        "学习",
        "一起",
    ),
}
AVOIDABLE = {
    "en": (
        "very",
        "good",
        "great",
        "thing",
        "many",
        "also",
        "really",
        "however",
        "can",
        "is",
        "you",
        "used",
    ),
    "zh": ("非常", "可以", "但是", "很多", "我们", "重要", "因此", "不过"),
}


def occurrences(word: str, text: str) -> int:
    """How often `word` stands in `text`, whatever the case: as a whole word, or anywhere if it
    holds Chinese, which has no spaces."""
    if re.search(f"[{HAN}]", word):
        return text.count(word)
    return len(re.findall(rf"(?<!\w){re.escape(word.strip().lower())}(?!\w)", text.lower()))


def check_include_words(params: Params, text: str) -> Check:
    missing = [word for word in params["words"] if not occurrences(word, text)]
    return verdict(not missing, f"missing: {', '.join(missing) or 'none'}")


def check_exclude_words(params: Params, text: str) -> Check:
    present = [word for word in params["words"] if occurrences(word, text)]
    return verdict(not present, f"present: {', '.join(present) or 'none'}")


def check_word_frequency(params: Params, text: str) -> Check:
    seen = occurrences(params["word"], text)
    return verdict(seen >= params["count"], f"{seen} times, at least {params['count']} asked for")


def check_forbidden_letter(params: Params, text: str) -> Check:
    seen = text.lower().count(params["letter"].lower())
    return verdict(seen == 0, f"the letter {params['letter']!r} stands there {seen} times")


def check_letter_frequency(params: Params, text: str) -> Check:
    seen = text.lower().count(params["letter"].lower())
    return verdict(
        seen >= params["count"],
        f"the letter {params['letter']!r} {seen} times, at least {params['count']} asked for",
    )


def draw_include(rng: random.Random, language: str) -> dict[str, Any]:
    return {"words": rng.sample(COMMON[language], rng.choice((1, 1, 2)))}


def draw_exclude(rng: random.Random, language: str) -> dict[str, Any]:
    return {"words": rng.sample(AVOIDABLE[language], rng.choice((1, 2)))}


def draw_frequency(rng: random.Random, language: str) -> dict[str, Any]:
    return {"word": rng.choice(COMMON[language]), "count": rng.choice((2, 3))}


def draw_forbidden_letter(rng: random.Random, language: str) -> dict[str, Any]:
    return {"letter": rng.choice("jkqvxz")}


def draw_letter_frequency(rng: random.Random, language: str) -> dict[str, Any]:
    return {"letter": rng.choice("bfgkpvwyz"), "count": rng.choice((2, 3, 4))}


def _words(params: Params) -> str:
    return " ".join(params["words"])


KINDS = (
    Kind(
        "include_words",
        "keywords",
        {"words": Param.TEXTS},
        check_include_words,
        draw_include,
        {
            "en": ("Include the {words:word}.", "Use the {words:word} in your answer."),
            "zh": ("回答中要包含{words}这个词。", "必须用到词语{words}。"),
        },
        literal=_words,
    ),
    Kind(
        "exclude_words",
        "keywords",
        {"words": Param.TEXTS},
        check_exclude_words,
        draw_exclude,
        {
            "en": ("Do not use the {words:word}.", "Never use the {words:word}."),
            "zh": ("不要使用{words}这个词。", "回答中不能出现{words}。"),
        },
        breaks_on_fragment=True,
    ),
    Kind(
        "word_frequency",
        "keywords",
        {"word": Param.TEXT, "count": Param.COUNT},
        check_word_frequency,
        draw_frequency,
        {
            "en": (
                'Use the word "{word}" at least {count:time}.',
                'The word "{word}" should appear {count:time} or more.',
            ),
            "zh": ("“{word}”这个词至少出现{count}次。", "至少{count}次用到“{word}”。"),
        },
        literal=lambda params: str(params["word"]),
    ),
    Kind(
        "forbidden_letter",
        "keywords",
        {"letter": Param.LETTER},
        check_forbidden_letter,
        draw_forbidden_letter,
        {"en": ('Do not use the letter "{letter}".', 'Avoid the letter "{letter}" everywhere.')},
        slots=frozenset({"letters"}),
        breaks_on_fragment=True,
    ),
    Kind(
        "letter_frequency",
        "keywords",
        {"letter": Param.LETTER, "count": Param.COUNT},
        check_letter_frequency,
        draw_letter_frequency,
        {
            "en": (
                'Use the letter "{letter}" at least {count:time}.',
                'The letter "{letter}" must appear {count:time} or more.',
            )
        },
        slots=frozenset({"letters"}),
    ),
)
