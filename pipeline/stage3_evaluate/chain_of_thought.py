"""Chain of thought: the same problems asked for the answer alone and for reasoning first.

Metric: accuracy step by step; beside it the direct answer, because a gain in both is not a gain
in reasoning. `direct` limits the tokens, and an answer that reasons all the same is marked.
`beyond` names further sets, longer or larger than what was trained; `samples` asks each item that
often at a temperature, for majority votes.
Worked example: "... The answer is 12." against the reference 12: right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.config import Config
from pipeline.config_evaluate import Arm
from pipeline.errors import UserError
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Extraction, Generation, Seed
from pipeline.stage3_evaluate.answers import (
    AnswerKind,
    Expected,
    can_be_right,
    expected_of,
    is_right,
    read_answer,
    spelled,
)
from pipeline.stage3_evaluate.choices import right_choice
from pipeline.stage3_evaluate.items import load_items
from pipeline.stage3_evaluate.metrics_chain_of_thought import BEYOND, SAMPLED
from pipeline.stage3_evaluate.questions import Question, sampling_of

DIRECT_TOKENS = 16
SAMPLES_TEMPERATURE = 0.7
_WORDS_BEFORE = 12  # before the answer: more is no longer "The answer to your question is ..."
_CALCULATION = re.compile(r"\d\)?\s*[+*/×÷=-]\s*[($€£¥]*\d|\d[^\n=]{0,20}=\s*[$€£¥]?\s*$")
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")


def questions(config: Config, arm: Arm) -> Iterator[Question]:
    table = config.evaluate.chain_of_thought
    assert table is not None
    teacher_prompt = table.teacher_prompt or table.prompt
    prompt = load_prompt(teacher_prompt if arm == "teacher" else table.prompt)
    direct = load_prompt(table.direct_prompt)
    sampling = sampling_of(config, table.sampling)
    short = sampling_of(
        config, table.sampling | {"max_tokens": DIRECT_TOKENS} | table.direct_sampling
    )
    sets = [("problems", "")] + [(f"beyond={name}", f"{BEYOND}{name}") for name in table.beyond]
    for name, behind in sets:
        for item in load_items(config, "chain_of_thought", name):
            _check(item, name)
            for mode, asked, how in (("direct", direct, short), ("step_by_step", prompt, sampling)):
                messages = render(asked, item.fields)
                yield Question("chain_of_thought", mode + behind, item, asked.ref, messages, how)
    if table.samples > 1:
        drawn = sampling_of(
            config,
            table.sampling | {"temperature": SAMPLES_TEMPERATURE} | table.samples_sampling,
        )
        for item in load_items(config, "chain_of_thought", "problems"):
            messages = render(prompt, item.fields)
            for sample in range(table.samples):
                yield Question(
                    "chain_of_thought", SAMPLED, item, prompt.ref, messages, drawn,
                    sample=sample, samples=table.samples,
                )  # fmt: skip


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    expected = expected_of(question.item)
    found, value = read_answer(generation.text, expected, generation.finish)
    reference = question.item.reference or ""
    said = found is Extraction.VALUE and value is not None
    direct = question.variant.split(BEYOND)[0] == "direct"
    return Answer(
        model=arm,
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text=generation.text,
        finish=generation.finish,
        extraction=found,
        extracted=value,
        correct=float(said and is_right(value or "", reference, expected)),
        reference=reference,
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
        sample=question.sample,
        spelled=spelled(value, expected) if said and value else None,
        reasoned=reasons_first(generation, value, expected) if direct else None,
    )


def reasons_first(generation: Generation, value: str | None, expected: Expected) -> bool:
    """Whether a direct answer reasoned before it answered: in hidden thoughts, or in its text.

    In the text: a calculation, or more words than an opening has, before the value first stands.
    What follows the answer could not help to find it and does not count.
    """
    if generation.reasoning and generation.reasoning.strip():
        return True
    before = generation.text
    if value is not None:
        shown = re.escape(value)
        if expected.kind is AnswerKind.CHOICE:
            shown += "|" + re.escape(expected.options.get(value, value))
        if stands := re.search(rf"(?<![\w.])(?:{shown})(?!\w)", before, re.IGNORECASE):
            before = before[: stands.start()]
    words = len(_WORD.findall(before))
    return words > _WORDS_BEFORE or _CALCULATION.search(before) is not None


def _check(item: Seed, name: str) -> None:
    """An item whose reference can never be right is a mistake to be told about beforehand."""
    expected, reference = expected_of(item), item.reference or ""
    place = f"evaluate.chain_of_thought, {name}: item {item.id} ({item.origin})"
    if expected.kind is AnswerKind.CHOICE:
        if right_choice(reference, expected.options):
            return
        raise UserError(
            f"{place} has the answer {reference!r}, which is none of its choices: "
            + ", ".join(f"({letter}) {text}" for letter, text in expected.options.items())
        )
    if not can_be_right(reference, expected):
        raise UserError(
            f"{place} has the answer {reference!r}, which is read as the kind "
            f"{expected.kind}, and nothing that is read so can be right; give the row its "
            f"`answer_kind`, one of {', '.join(AnswerKind)}, or another answer"
        )
