"""Format, in places: titles, quotation marks, highlights and placeholders."""

from __future__ import annotations

import re

from pipeline.constraints.kinds import Check, Kind, Param, Params, nothing, one_of, verdict
from pipeline.constraints.text_units import words

COUNT = {"count": Param.COUNT}

_TITLE = re.compile(r"<<([^<>\n]+)>>")
# An opening star stands before a letter and not after one: "2*3" and "* item" mark nothing.
_HIGHLIGHT = re.compile(r"(?<![A-Za-z0-9*])\*{1,3}(?=[^\s*])([^*\n]+)\*{1,3}")
_PLACEHOLDER = re.compile(r"\[([^\[\]\n]{2,80})\](?!\()")
_QUOTES = {'"': '"', "“": "”", "「": "」", "『": "』", "«": "»"}


def check_title(params: Params, text: str) -> Check:
    found = any(words(title) for title in _TITLE.findall(text))
    return verdict(found, "a title in << >>" if found else "no title in << >>")


def check_quotation(params: Params, text: str) -> Check:
    body = text.strip()
    wrapped = len(body) > 2 and _QUOTES.get(body[0]) == body[-1]
    return verdict(wrapped, f"begins with {body[0]!r} and ends with {body[-1]!r}")


def check_highlights(params: Params, text: str) -> Check:
    seen = sum(1 for marked in _HIGHLIGHT.findall(text) if words(marked))
    return verdict(
        seen >= params["count"], f"{seen} highlights, at least {params['count']} asked for"
    )


def check_placeholders(params: Params, text: str) -> Check:
    seen = sum(1 for name in _PLACEHOLDER.findall(text) if words(name))
    return verdict(
        seen >= params["count"], f"{seen} placeholders, at least {params['count']} asked for"
    )


KINDS = (
    Kind(
        "title",
        "format",
        {},
        check_title,
        nothing,
        {
            "en": (
                "Give your answer a title in double angle brackets, like <<Title>>.",
                "Include a title wrapped in << and >>.",
            ),
            "zh": (
                "请加上一个标题，写在双尖括号里，例如 <<标题>>。",
                "回答要有标题，用 << 和 >> 括起来。",
            ),
        },
        slots=frozenset({"title"}),
    ),
    Kind(
        "quotation",
        "format",
        {},
        check_quotation,
        nothing,
        {
            "en": (
                "Wrap your whole answer in double quotation marks.",
                "Put double quotation marks around the whole answer.",
            ),
            "zh": ("把整个回答放在双引号里。", "用双引号括住全部回答。"),
        },
        slots=frozenset({"start", "end", "layout"}),
    ),
    Kind(
        "highlights",
        "format",
        COUNT,
        check_highlights,
        one_of(1, 2, 3),
        {
            "en": (
                "Highlight at least {count:word} with asterisks, *like this*.",
                "Mark {count:word} or more with stars, for example *word*.",
            ),
            "zh": ("至少用星号标出{count}处重点，例如*重点*。", "用*星号*强调至少{count}个词。"),
        },
        slots=frozenset({"highlights"}),
    ),
    Kind(
        "placeholders",
        "format",
        COUNT,
        check_placeholders,
        one_of(1, 2, 3),
        {
            "en": (
                "Include at least {count:placeholder} in square brackets, such as [name].",
                "Use {count:placeholder} or more in square brackets, for example [date].",
            ),
            "zh": (
                "至少包含{count}个方括号占位符，例如[姓名]。",
                "用到{count}个或更多的占位符，如[日期]。",
            ),
        },
        slots=frozenset({"placeholders"}),
    ),
)
