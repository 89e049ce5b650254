"""Chain of thought: the same problems asked for the number alone and for reasoning first.

Metric: accuracy step by step; beside it the direct answer, because a gain in both is not a gain
in reasoning. `direct` limits the tokens, so that it cannot become reasoning unnoticed.
Worked example: "... The answer is 12." against the reference 12: right.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.config_evaluate import Arm
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Extraction, Generation
from pipeline.stage3_evaluate.answers import extract_number, numbers_equal
from pipeline.stage3_evaluate.items import load_items
from pipeline.stage3_evaluate.questions import Question, sampling_of

DIRECT_TOKENS = 16


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
    for item in load_items(config, "chain_of_thought", "problems"):
        for variant, asked, how in (
            ("direct", direct, short),
            ("step_by_step", prompt, sampling),
        ):
            messages = render(asked, item.fields)
            yield Question("chain_of_thought", variant, item, asked.ref, messages, how)


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    found, value = extract_number(generation.text, generation.finish)
    reference = question.item.reference or ""
    right = found is Extraction.VALUE and value is not None and numbers_equal(value, reference)
    return Answer(
        model=arm,
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text=generation.text,
        finish=generation.finish,
        extraction=found,
        extracted=value,
        correct=float(right),
        reference=reference,
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
    )
