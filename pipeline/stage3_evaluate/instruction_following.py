"""Instruction following: verifiable constraints, strict and loose, on topics never trained on.

Metric: share of items all of whose constraints hold (prompt level, strict; IFEval 2311.07911),
separately for constraint types that training used and for types it never saw. `loose` forgives a
wrapper line and Markdown emphasis.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.config_evaluate import Arm
from pipeline.constraints import Outcome, check, follows_loose
from pipeline.errors import UserError
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Extraction, Finish, Generation
from pipeline.stage3_evaluate.items import load_items
from pipeline.stage3_evaluate.questions import Question, sampling_of


def questions(config: Config, arm: Arm) -> Iterator[Question]:
    table = config.evaluate.instruction_following
    assert table is not None
    teacher_prompt = table.teacher_prompt or table.prompt
    prompt = load_prompt(teacher_prompt if arm == "teacher" else table.prompt)
    sampling = sampling_of(config, table.sampling)
    for variant in ("seen_types", "unseen_types"):
        for item in load_items(config, "instruction_following", variant):
            if not item.constraints:
                raise UserError(
                    f"evaluate.instruction_following.{variant}: item {item.id} has no constraints"
                )
            messages = render(prompt, item.fields)
            yield Question("instruction_following", variant, item, prompt.ref, messages, sampling)


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    asked = question.item.constraints
    broken = [c.type for c in asked if check(c, generation.text).outcome is Outcome.BROKEN]
    loosely = follows_loose(asked, generation.text).outcome
    outcome = Extraction.VALUE if generation.text.strip() else Extraction.NO_ANSWER
    if generation.finish is Finish.LENGTH:
        outcome = Extraction.TRUNCATED
    return Answer(
        model=arm,
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text=generation.text,
        finish=generation.finish,
        extraction=outcome,
        extracted=", ".join(broken) or None,
        correct=float(not broken),
        loose=float(loosely is Outcome.FOLLOWED),
        reference=", ".join(c.type for c in asked),
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
    )
