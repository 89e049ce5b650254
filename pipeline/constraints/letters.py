"""Case and script: how the letters of the answer are written."""

from __future__ import annotations

import re

from pipeline.constraints.kinds import Check, Kind, Param, Params, nothing, one_of, verdict
from pipeline.constraints.text_units import han_characters, words

# A name or a technical word in the other script is natural; a sentence in it is not.
CHINESE_SHARE = 0.7
ENGLISH_SHARE = 0.95

# Small words stay small in an English title; both ways are right.
SMALL_WORDS = frozenset(
    {"a", "an", "and", "as", "at", "but", "by", "for", "from", "in", "into", "nor", "of", "off"}
) | {"on", "onto", "or", "over", "per", "so", "the", "to", "up", "via", "with", "yet"}


def check_all_lowercase(params: Params, text: str) -> Check:
    upper = [char for char in text if char.isupper()]
    lower = any(char.islower() for char in text)
    return verdict(not upper and lower, f"{len(upper)} capital letters")


def check_all_uppercase(params: Params, text: str) -> Check:
    lower = [char for char in text if char.islower()]
    upper = any(char.isupper() for char in text)
    return verdict(not lower and upper, f"{len(lower)} small letters")


def check_title_case(params: Params, text: str) -> Check:
    written = [
        word for word in words(text) if word[0].isalpha() and word[0].lower() != word[0].upper()
    ]
    small = [
        word
        for place, word in enumerate(written)
        if word[0].islower() and (place == 0 or word not in SMALL_WORDS)
    ]
    seen = f"{len(small)} words without a capital" + (f", as {small[0][:30]!r}" if small else "")
    return verdict(bool(written) and not small, seen)


def check_capital_words(params: Params, text: str) -> Check:
    capital = [word for word in words(text) if len(word) > 1 and word.isupper()]
    return verdict(
        len(capital) >= params["count"],
        f"{len(capital)} words in capitals, at least {params['count']} asked for",
    )


def han_share(text: str) -> float:
    """Share of Chinese characters among all letters, 0 to 1; Chinese weighs a character as one
    word, so Latin text is counted in words, not in letters."""
    han = han_characters(text)
    other = len(re.findall(r"[^\W\d_]", text)) - han
    latin_words = sum(1 for word in words(text) if word[0].isalpha()) - han
    return han / (han + latin_words) if han and other >= 0 else 0.0


def check_chinese(params: Params, text: str) -> Check:
    share = han_share(text)
    return verdict(share >= CHINESE_SHARE, f"{share:.0%} of the words are Chinese")


def check_english(params: Params, text: str) -> Check:
    letters = re.findall(r"[^\W\d_]", text)
    latin = sum(1 for letter in letters if letter < "\u0250")
    share = latin / len(letters) if letters else 0.0
    return verdict(share >= ENGLISH_SHARE, f"{share:.0%} of the letters are Latin")


CASE = frozenset({"case"})
KINDS = (
    Kind(
        "all_lowercase",
        "case",
        {},
        check_all_lowercase,
        nothing,
        {
            "en": (
                "Use only lowercase letters.",
                "Write everything in lowercase. No capital letters.",
                "Do not use any capital letters.",
            )
        },
        slots=CASE,
        breaks_on_fragment=True,
    ),
    Kind(
        "all_uppercase",
        "case",
        {},
        check_all_uppercase,
        nothing,
        {
            "en": (
                "Use only capital letters.",
                "WRITE EVERYTHING IN CAPITAL LETTERS.",
                "Write the whole answer in capital letters.",
            )
        },
        slots=CASE,
        breaks_on_fragment=True,
    ),
    Kind(
        "title_case",
        "case",
        {},
        check_title_case,
        nothing,
        {"en": ("Start every word with a capital letter.", "Write your answer in title case.")},
        slots=CASE,
        breaks_on_fragment=True,
    ),
    Kind(
        "capital_words",
        "case",
        {"count": Param.COUNT},
        check_capital_words,
        one_of(1, 2, 3),
        {
            "en": (
                "Write at least {count:word} in ALL CAPITALS.",
                "Put {count:word} or more in full capital letters.",
            )
        },
        slots=CASE,
    ),
    Kind(
        "chinese",
        "language",
        {},
        check_chinese,
        nothing,
        {
            "en": ("Answer in Chinese.", "Write your whole answer in Chinese."),
            "zh": ("请用中文回答。", "回答只用中文。"),
        },
        slots=frozenset({"script", "case", "letters"}),
        breaks_on_fragment=True,
    ),
    Kind(
        "english",
        "language",
        {},
        check_english,
        nothing,
        {
            "en": ("Answer in English.", "Write your whole answer in English."),
            "zh": ("请用英文回答。", "回答只用英文。"),
        },
        slots=frozenset({"script"}),
        breaks_on_fragment=True,
    ),
)
