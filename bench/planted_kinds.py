"""The kinds of bad answer that planted.py plants, and what must drop each."""

from __future__ import annotations

import random
from collections.abc import Sequence

import planted_content as content
import planted_form as form
from planted_form import Maker, prose, prose_zh, spoiled
from planted_good import (
    Row,
    arithmetic,
    arithmetic_zh,
    choices,
    code,
    extraction,
    instruction,
    label,
    writing,
)

FAULTS: dict[str, Maker] = {
    "cut off (finish length)": lambda rng: spoiled(prose, form.cut)(rng)._replace(finish="length"),
    "cut off (finish stop)": spoiled(prose, form.cut),
    "code fence left open": spoiled(code, form.open_fence),
    "stopped by the provider": lambda rng: prose(rng)._replace(finish="refused"),
    "failed": lambda rng: prose(rng)._replace(finish="error", text=""),
    "refusal, English": spoiled(prose, form.declined(form.REFUSALS)),
    "refusal, Chinese": spoiled(prose_zh, form.declined(form.REFUSALS_ZH)),
    "refusal after a courtesy": spoiled(prose, form.declined(form.POLITE)),
    "loop of words at the end": spoiled(prose, form.loop_words),
    "loop of words in the middle": spoiled(prose, form.loop_middle),
    "loop of lines": spoiled(prose, form.loop_lines),
    "loop of characters": spoiled(prose, form.loop_characters),
    "loop, Chinese": spoiled(prose_zh, form.loop_zh),
    "wrong number": spoiled(arithmetic, content.wrong_number),
    "wrong number, Chinese": spoiled(arithmetic_zh, content.wrong_number),
    "right number, wrong unit": spoiled(content.measured(arithmetic), content.wrong_unit),
    "right number, wrong unit, Chinese": spoiled(
        content.measured(arithmetic_zh), content.wrong_unit
    ),
    "no number at all": spoiled(arithmetic, content.no_number),
    "hedge between values": spoiled(arithmetic, content.hedge),
    "two answers": spoiled(arithmetic, content.two_answers),
    "thinking tag never closed": spoiled(prose, form.tags("<{n}>{s}. {a}")),
    "closing tag alone": spoiled(prose, form.tags("{s}.</{n}>\n{a}")),
    "thinking left in the answer": spoiled(prose, form.tags("<{n}>{s}.</{n}>\n{a}")),
    "only reasoning": lambda rng: content.thought(arithmetic(rng)),
    "no words": lambda rng: prose(rng)._replace(text=rng.choice(("...", "—", "***", "\n\n", "。"))),
    "question as the answer": spoiled(writing, form.echo),
    "question before the answer": spoiled(
        arithmetic, lambda a, rng, row: f"{form.question(row)} {a}"
    ),
    "system text leaked": spoiled(arithmetic, form.leak_system),
    "worked example leaked": spoiled(arithmetic, form.leak_shot),
    "template token": spoiled(prose, form.token),
    "next turn of the user": spoiled(prose, form.next_turn),
    "wrong language": spoiled(prose, form.foreign),
    "wrong language, Chinese": spoiled(prose_zh, form.foreign),
    "drift into Chinese": spoiled(prose, form.drift),
    "invalid JSON": spoiled(extraction, content.no_json),
    "schema broken": spoiled(extraction, content.bad_schema),
    "constraint broken": spoiled(instruction, content.broken),
    "label outside the set": spoiled(label, content.outside),
    "wrong label": spoiled(label, content.other_label),
    "wrong choice": spoiled(choices, content.other_letter),
    "secret": spoiled(prose, form.secret),
    "personal data": spoiled(prose, form.personal),
    "longer than the student": spoiled(prose, form.too_long),
    "evaluation item": content.item(content.same),
    "evaluation item, other names": content.item(content.renamed),
    "evaluation item, other numbers": content.item(lambda story, rng: story, numbers=True),
}


# kind -> the filters that are right to drop it, and how their reason begins ("" for any)
EXPECTED: dict[str, dict[str, str]] = {
    "cut off (finish length)": {"finish": "ended by length"},
    "cut off (finish stop)": {"unfinished": ""},
    "code fence left open": {"unfinished": "a code fence"},
    "stopped by the provider": {"finish": "ended by refused"},
    "failed": {"finish": ""},
    **{kind: {"refusal": ""} for kind in FAULTS if kind.startswith("refusal")},
    **{kind: {"repetition": ""} for kind in FAULTS if kind.startswith("loop")},
    "wrong number": {"answer": "wrong"},
    "wrong number, Chinese": {"answer": "wrong"},
    "right number, wrong unit": {"unit": ""},
    "right number, wrong unit, Chinese": {"unit": ""},
    "no number at all": {"answer": "no answer"},
    "hedge between values": {"answer": "no answer"},
    "two answers": {"one_answer": ""},
    "thinking tag never closed": {"unclosed_reasoning": "opened"},
    "closing tag alone": {"unclosed_reasoning": "closed"},
    "thinking left in the answer": {"unclosed_reasoning": "thinking"},
    "only reasoning": {"empty": "only reasoning"},
    "no words": {"empty": "no words"},
    "question as the answer": {"leaked_prompt": "the question"},
    "question before the answer": {"leaked_prompt": "begins with"},
    "system text leaked": {"leaked_prompt": "words of the prompt"},
    "worked example leaked": {"leaked_prompt": "words of the prompt"},
    "template token": {"leaked_prompt": "template token"},
    "next turn of the user": {"leaked_prompt": "the next turn"},
    **{kind: {"language": ""} for kind in FAULTS if "language" in kind or kind.startswith("drift")},
    "invalid JSON": {"format": "not JSON"},
    "schema broken": {"format": "breaks"},
    "constraint broken": {"constraints": "broken"},
    "label outside the set": {"answer": "no answer"},
    "wrong label": {"answer": "wrong"},
    "wrong choice": {"answer": "wrong"},
    "secret": {"secrets": ""},
    "personal data": {"personal_data": ""},
    "longer than the student": {"fits_student": "longer"},
    **{kind: {"contamination": ""} for kind in FAULTS if kind.startswith("evaluation")},
    "exact duplicate": {"exact_duplicates": ""},
    "near-duplicate": {"near_duplicates": ""},
}


def bad_rows(each: int, good: Sequence[Row], rng: random.Random) -> list[Row]:
    """`each` rows of every kind but the duplicates, which must come after their originals."""
    rows = [make(rng)._replace(fault=kind) for kind, make in FAULTS.items() for _ in range(each)]
    rng.shuffle(rows)
    return rows


def duplicate_rows(each: int, good: Sequence[Row], rng: random.Random) -> list[Row]:
    """Copies of good answers: `each` exact ones, `each` of longer texts with a word changed."""
    exact = [content.exact_duplicate(row, rng) for row in rng.sample(list(good), each)]
    long = [row for row in good if row.task == "writing" and len(set(row.text.split())) > 40]
    near = [content.near_duplicate(row, rng) for row in rng.sample(long, each)]
    return [r._replace(fault="exact duplicate") for r in exact] + [
        r._replace(fault="near-duplicate") for r in near
    ]
