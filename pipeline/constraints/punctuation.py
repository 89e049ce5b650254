"""Punctuation and digits that must, or must not, appear."""

from __future__ import annotations

import re

from pipeline.constraints.kinds import Check, Kind, Param, Params, nothing, one_of, verdict
from pipeline.constraints.text_units import sentences, words

COUNT = {"count": Param.COUNT}
CLOSERS = "\"'”’」』）)]*_` "


def check_no_comma(params: Params, text: str) -> Check:
    seen = sum(text.count(mark) for mark in ",，")
    return verdict(seen == 0, f"{seen} commas")


def check_no_full_stop(params: Params, text: str) -> Check:
    seen = sum(text.count(mark) for mark in ".。．")
    return verdict(seen == 0, f"{seen} full stops")


def check_no_question_mark(params: Params, text: str) -> Check:
    seen = sum(text.count(mark) for mark in "?？")
    return verdict(seen == 0, f"{seen} question marks")


def check_exclamations(params: Params, text: str) -> Check:
    seen = sum(text.count(mark) for mark in "!！")
    return verdict(
        seen >= params["count"], f"{seen} exclamation marks, at least {params['count']} asked for"
    )


def check_every_sentence_exclaims(params: Params, text: str) -> Check:
    found = sentences(text)
    quiet = [sentence for sentence in found if sentence.rstrip(CLOSERS)[-1:] not in ("!", "！")]
    return verdict(
        bool(found) and not quiet, f"{len(quiet)} of {len(found)} sentences end in another way"
    )


def check_no_digits(params: Params, text: str) -> Check:
    seen = len(re.findall(r"\d", text))
    return verdict(seen == 0, f"{seen} digits")


def check_numbers(params: Params, text: str) -> Check:
    seen = len(re.findall(r"\d++(?:[.,]\d++)*+", text))
    return verdict(seen >= params["count"], f"{seen} numbers, at least {params['count']} asked for")


def check_parentheses(params: Params, text: str) -> Check:
    inside = re.findall(r"[(（]([^()（）]+)[)）]", text)
    seen = sum(1 for remark in inside if words(remark))
    return verdict(
        seen >= params["count"],
        f"{seen} remarks in parentheses, at least {params['count']} asked for",
    )


KINDS = (
    Kind(
        "no_comma",
        "punctuation",
        {},
        check_no_comma,
        nothing,
        {
            "en": ("Do not use any commas.", "Write without commas.", "Use no commas."),
            "zh": ("不要使用逗号。", "回答中不能有逗号。"),
        },
        slots=frozenset({"commas"}),
        breaks_on_fragment=True,
    ),
    Kind(
        "no_full_stop",
        "punctuation",
        {},
        check_no_full_stop,
        nothing,
        {
            "en": ("Do not use any full stops (periods).", "Write without periods."),
            "zh": ("不要使用句号。", "回答中不能有句号。"),
        },
        slots=frozenset({"sentences"}),
        breaks_on_fragment=True,
    ),
    Kind(
        "no_question_mark",
        "punctuation",
        {},
        check_no_question_mark,
        nothing,
        {
            "en": ("Do not use any question marks.", "Ask no questions in your answer."),
            "zh": ("不要使用问号。", "回答中不能有问号。"),
        },
        breaks_on_fragment=True,
    ),
    Kind(
        "exclamations",
        "punctuation",
        COUNT,
        check_exclamations,
        one_of(1, 2, 3),
        {
            "en": (
                "Use at least {count:exclamation mark}.",
                "Include {count:exclamation mark} or more.",
            ),
            "zh": ("至少用{count}个感叹号。", "回答中要有{count}个或更多感叹号。"),
        },
        slots=frozenset({"marks"}),
    ),
    Kind(
        "every_sentence_exclaims",
        "punctuation",
        {},
        check_every_sentence_exclaims,
        nothing,
        {
            "en": (
                "End every sentence with an exclamation mark.",
                'Every sentence must end with "!".',
            ),
            "zh": ("每句话都要以感叹号结尾。", "所有句子都用感叹号结束。"),
        },
        slots=frozenset({"sentences", "end", "marks"}),
    ),
    Kind(
        "no_digits",
        "punctuation",
        {},
        check_no_digits,
        nothing,
        {
            "en": ("Do not use any digits.", "Write all numbers as words, without digits."),
            "zh": ("不要使用阿拉伯数字。", "回答中不能出现数字0到9。"),
        },
        slots=frozenset({"digits"}),
        breaks_on_fragment=True,
    ),
    Kind(
        "numbers",
        "punctuation",
        COUNT,
        check_numbers,
        one_of(1, 2, 3),
        {
            "en": (
                "Include at least {count:number} written in digits.",
                "Use {count:number} or more, in digits such as 7.",
            ),
            "zh": ("至少写出{count}个阿拉伯数字。", "回答中要有{count}个或更多用0到9写的数。"),
        },
        slots=frozenset({"digits"}),
    ),
    Kind(
        "parentheses",
        "punctuation",
        COUNT,
        check_parentheses,
        one_of(1, 2),
        {
            "en": (
                "Add at least {count:remark} in parentheses (like this).",
                "Put {count:remark} or more in parentheses.",
            ),
            "zh": ("至少加{count}处括号说明（像这样）。", "用括号补充至少{count}处说明。"),
        },
    ),
)
