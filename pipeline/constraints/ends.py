"""Start and end: what the answer begins and closes with."""

from __future__ import annotations

import random
from typing import Any

from pipeline.constraints.kinds import Check, Kind, Param, Params, nothing, verdict
from pipeline.constraints.text_units import words

OPENINGS = {
    "en": (
        "In short,",
        "Here is my answer:",
        "I think",
        "Let me explain.",
        "Good question!",
        "Of course!",
        "To begin with,",
        "As you may know,",
        "Dear friend,",
        "Well,",
    ),
    "zh": ("简单来说，", "我的回答是：", "大家好，", "众所周知，", "首先，", "好的，"),
}
CLOSINGS = {
    "en": (
        "That is all.",
        "I hope this helps.",
        "Thank you for reading.",
        "The end.",
        "Have a nice day!",
        "Now you know.",
        "Ask me more.",
    ),
    "zh": ("谢谢阅读。", "希望对你有帮助。", "以上就是我的回答。", "祝你愉快！", "完毕。"),
}
# Marks that may follow the last sign of an answer without changing how it ends.
CLOSERS = "\"'”’」』）)*_` \t\r\n"


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().replace("’", "'")


def check_start_phrase(params: Params, text: str) -> Check:
    phrase = _plain(params["phrase"])
    start = _plain(text[: 4 * len(params["phrase"]) + 1000])
    followed = start.startswith(phrase) and not _cuts_a_word(phrase, start[len(phrase) :])
    return verdict(followed, f"begins with {text.strip()[:40]!r}")


def _cuts_a_word(phrase: str, rest: str) -> bool:
    """Whether "In" was found at the start of "Indeed"."""
    return phrase[-1].isascii() and phrase[-1].isalnum() and rest[:1].isalnum()


def check_end_phrase(params: Params, text: str) -> Check:
    end = _plain(text[-4 * len(params["phrase"]) - 1000 :]).rstrip(CLOSERS)
    followed = end.endswith(_plain(params["phrase"]).rstrip(CLOSERS))
    return verdict(followed, f"ends with {text.strip()[-40:]!r}")


def check_postscript(params: Params, text: str) -> Check:
    marker = params["marker"].casefold()
    for line in text.splitlines():
        head = line.strip().lstrip("*_ ")
        if head.casefold().startswith(marker) and words(head[len(marker) :]):
            return verdict(True, f"a line begins with {params['marker']!r}")
    return verdict(False, f"no line begins with {params['marker']!r} and goes on")


def check_end_question(params: Params, text: str) -> Check:
    last = text.rstrip(CLOSERS)[-1:]
    return verdict(last in ("?", "？"), f"the last mark is {last!r}")


def check_start_letter(params: Params, text: str) -> Check:
    found = words(text[:2000])
    first = found[0] if found else ""
    return verdict(
        first[:1].lower() == params["letter"].lower(), f"the first word is {first[:30]!r}"
    )


def draw_opening(rng: random.Random, language: str) -> dict[str, Any]:
    return {"phrase": rng.choice(OPENINGS[language])}


def draw_closing(rng: random.Random, language: str) -> dict[str, Any]:
    return {"phrase": rng.choice(CLOSINGS[language])}


def draw_postscript(rng: random.Random, language: str) -> dict[str, Any]:
    return {"marker": rng.choice(("P.S.", "P.P.S.") if language == "en" else ("附注：", "另外："))}


def draw_letter(rng: random.Random, language: str) -> dict[str, Any]:
    return {"letter": rng.choice("ABEHIMOSTW")}


def _phrase(params: Params) -> str:
    return str(params["phrase"])


KINDS = (
    Kind(
        "start_phrase",
        "start_end",
        {"phrase": Param.TEXT},
        check_start_phrase,
        draw_opening,
        {
            "en": ('Begin your answer with "{phrase}".', 'Start with the words "{phrase}".'),
            "zh": ("请以“{phrase}”开头。", "回答的开头必须是“{phrase}”。"),
        },
        slots=frozenset({"start"}),
        literal=_phrase,
    ),
    Kind(
        "end_phrase",
        "start_end",
        {"phrase": Param.TEXT},
        check_end_phrase,
        draw_closing,
        {
            "en": ('End your answer with "{phrase}".', 'Finish with the words "{phrase}".'),
            "zh": ("请以“{phrase}”结尾。", "回答的最后一句必须是“{phrase}”。"),
        },
        slots=frozenset({"end"}),
        literal=_phrase,
    ),
    Kind(
        "postscript",
        "start_end",
        {"marker": Param.TEXT},
        check_postscript,
        draw_postscript,
        {
            "en": (
                "At the end add a postscript on a new line that begins with {marker}",
                "Add a last line that starts with {marker}",
            ),
            "zh": ("在最后另起一行，以“{marker}”开头加一句补充。",),
        },
        slots=frozenset({"end", "length"}),
        literal=lambda params: str(params["marker"]),
    ),
    Kind(
        "end_question",
        "start_end",
        {},
        check_end_question,
        nothing,
        {
            "en": ("End your answer with a question.", "The last sentence must be a question."),
            "zh": ("最后一句必须是问句。", "请用一个问题结束回答。"),
        },
        slots=frozenset({"end"}),
        literal=lambda params: "?",
    ),
    Kind(
        "start_letter",
        "start_end",
        {"letter": Param.LETTER},
        check_start_letter,
        draw_letter,
        {
            "en": (
                "The first word of your answer must begin with the letter {letter}.",
                "Start your answer with a word that begins with {letter}.",
            )
        },
        slots=frozenset({"start"}),
    ),
)
