"""Format, as a whole: lists, JSON, sections, tables, parts and headings."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from pipeline.constraints.kinds import Check, Kind, Param, Params, one_of, verdict
from pipeline.constraints.text_units import lines, words

COUNT = {"count": Param.COUNT}

_BULLET = re.compile(r"[-*+•·–]\s+\S")
_NUMBERED = re.compile(r"(\d{1,4})(?:[.)．](?!\d)|、)\s*\S")
_TABLE_RULE = re.compile(r"\|?(?:\s?:?-{2,}:?\s?\|)*\s?:?-{2,}:?\s?\|?")
_NUMERALS = "零一二三四五六七八九十"


def check_bullets(params: Params, text: str) -> Check:
    seen = sum(1 for line in lines(text) if _BULLET.match(line) and words(line))
    return verdict(seen == params["count"], f"{seen} bullet points, {params['count']} asked for")


def check_numbered_list(params: Params, text: str) -> Check:
    found = [_NUMBERED.match(line) for line in lines(text)]
    numbers = [int(item.group(1)) for item in found if item]
    return verdict(
        numbers == list(range(1, params["count"] + 1)),
        f"numbered lines {numbers[:12]}, 1 to {params['count']} asked for",
    )


def check_json_object(params: Params, text: str) -> Check:
    body = text.strip()
    if body.startswith("```") and body.endswith("```") and "\n" in body:
        body = body[body.index("\n") : -3]
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        return verdict(False, f"not JSON: {str(error)[:80]}")
    if not isinstance(value, dict):
        return verdict(False, f"JSON, but a {type(value).__name__} and not an object")
    missing = [key for key in params["keys"] if key not in value]
    return verdict(not missing, f"missing keys: {', '.join(missing) or 'none'}")


def check_sections(params: Params, text: str) -> Check:
    found = (_section_number(line, params["marker"]) for line in lines(text))
    numbers = [number for number in found if number]
    return verdict(
        numbers == list(range(1, params["count"] + 1)),
        f"section heads {numbers[:12]}, 1 to {params['count']} asked for",
    )


def _section_number(line: str, marker: str) -> int:
    """The number in a head such as "## Section 2:" or "第二部分", 0 for any other line."""
    head = line.lstrip("#*_ ")
    if marker == "部分":
        chinese = re.match(rf"第\s?(\d{{1,3}}|[{_NUMERALS}])\s?部分", head)
        if chinese is None:
            return 0
        digit = chinese.group(1)
        return int(digit) if digit.isdecimal() else _NUMERALS.index(digit)
    latin = re.match(rf"{re.escape(marker)}\s?(\d{{1,3}})(?!\w)", head, re.IGNORECASE)
    return int(latin.group(1)) if latin else 0


def check_table(params: Params, text: str) -> Check:
    rows = lines(text)
    for place, row in enumerate(rows[1:-1], 1):
        if "|" in row and len(row) < 1000 and _TABLE_RULE.fullmatch(row):
            columns = len(row.strip("|").split("|"))
            if columns == params["count"] and "|" in rows[place - 1] and "|" in rows[place + 1]:
                return verdict(True, f"a table of {columns} columns")
    return verdict(False, f"no table of {params['count']} columns")


def check_parts(params: Params, text: str) -> Check:
    parts: list[list[str]] = [[]]
    for line in lines(text):
        if line == "***":
            parts.append([])
        else:
            parts[-1].append(line)
    empty = sum(1 for part in parts if not words(" ".join(part)))
    return verdict(
        len(parts) == params["count"] and not empty,
        f"{len(parts)} parts, {empty} of them empty, {params['count']} asked for",
    )


def check_headings(params: Params, text: str) -> Check:
    seen = sum(1 for line in lines(text) if re.match(r"#{1,6}\s+\S", line) and words(line))
    return verdict(
        seen >= params["count"], f"{seen} headings, at least {params['count']} asked for"
    )


def draw_keys(rng: random.Random, language: str) -> dict[str, Any]:
    keys = {
        "en": (["topic", "fact"], ["name", "reason"], ["answer"], ["title", "summary"]),
        "zh": (["主题", "事实"], ["名称", "原因"], ["答案"], ["标题", "摘要"]),
    }
    return {"keys": rng.choice(keys[language])}


def draw_sections(rng: random.Random, language: str) -> dict[str, Any]:
    marker = rng.choice(("Section", "Part")) if language == "en" else "部分"
    return {"marker": marker, "count": rng.choice((2, 3))}


# JSON leaves room for hardly anything else.
_JSON_SLOTS = frozenset(
    {"layout", "sentences", "length", "start", "end", "case", "title", "highlights"}
) | {"placeholders", "headings", "commas", "digits", "marks"}
_LIST = frozenset({"layout", "sentences"})
KINDS = (
    Kind(
        "bullets",
        "format",
        COUNT,
        check_bullets,
        one_of(2, 3, 4, 5),
        {
            "en": (
                'Answer with exactly {count:bullet point}. Start each one with "- ".',
                'Give a list of exactly {count:bullet point}, each beginning with "- ".',
            ),
            "zh": (
                "正好列出{count}个要点，每个要点以“- ”开头。",
                "请用{count}个以“- ”开头的要点回答。",
            ),
        },
        slots=_LIST,
    ),
    Kind(
        "numbered_list",
        "format",
        COUNT,
        check_numbered_list,
        one_of(2, 3, 4, 5),
        {
            "en": (
                "Answer with a numbered list of exactly {count:item}.",
                "Give exactly {count:item} in a numbered list (1., 2., ...).",
            ),
            "zh": ("请列出正好{count}项，用1. 2. 这样的编号。", "用恰好{count}项的编号列表回答。"),
        },
        slots=_LIST | {"digits"},
        literal=lambda params: "1.",
    ),
    Kind(
        "json_object",
        "format",
        {"keys": Param.TEXTS},
        check_json_object,
        draw_keys,
        {
            "en": (
                "Answer with one JSON object that has the {keys:key}. Write nothing else.",
                "Reply only with JSON, using the {keys:key}.",
            ),
            "zh": ("只用一个JSON对象回答，键为{keys}。", "请只输出JSON，包含键{keys}。"),
        },
        slots=_JSON_SLOTS,
        literal=lambda params: " ".join(params["keys"]),
    ),
    Kind(
        "sections",
        "format",
        {"marker": Param.TEXT, "count": Param.COUNT},
        check_sections,
        draw_sections,
        {
            "en": (
                "Divide the answer into {count:section}. Begin each with a line such as "
                '"{marker} 1".',
                'Write {count:section} headed "{marker} 1", "{marker} 2" and so on.',
            ),
            "zh": ("把回答分成{count}个部分，每部分以“第1部分”这样的标题行开头。",),
        },
        slots=_LIST | {"digits"},
        literal=lambda params: f"{params['marker']} 1",
    ),
    Kind(
        "table",
        "format",
        COUNT,
        check_table,
        one_of(2, 3),
        {
            "en": (
                "Answer with a Markdown table of {count:column}.",
                "Put your answer in a Markdown table with {count:column}.",
            ),
            "zh": ("请用一个{count}列的Markdown表格回答。",),
        },
        slots=_LIST,
    ),
    Kind(
        "parts",
        "format",
        COUNT,
        check_parts,
        one_of(2, 3),
        {
            "en": (
                "Write {count:part} and put a line with *** between them.",
                "Give {count:part}, separated by a line that holds only ***.",
            ),
            "zh": ("分成{count}部分，中间用只有***的一行隔开。",),
        },
        slots=frozenset({"layout", "length", "highlights"}),
    ),
    Kind(
        "headings",
        "format",
        COUNT,
        check_headings,
        one_of(1, 2),
        {
            "en": (
                'Use at least {count:heading}. A heading is a line that begins with "# ".',
                'Include {count:Markdown heading} or more, like "# Title".',
            ),
            "zh": ("至少用{count}个以“# ”开头的标题行。",),
        },
        slots=frozenset({"headings", "length"}),
    ),
)
