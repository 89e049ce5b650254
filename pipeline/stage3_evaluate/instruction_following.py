"""Instruction following: verifiable constraints, strict and loose, on topics never trained on.

Metric: share of items all of whose constraints hold (prompt level, strict; IFEval 2311.07911),
separately for constraint types that training used, for types it never saw, and for a file in
IFEval's form. `loose` forgives a wrapper line and Markdown emphasis. What became of each
constraint is kept by its place in the item's list.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.config_evaluate import Arm
from pipeline.constraints import Outcome, check, check_loose
from pipeline.errors import UserError
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Constraint, Extraction, Finish, Followed, Generation, Seed
from pipeline.stage3_evaluate import ifeval
from pipeline.stage3_evaluate.items import load_items, named_sources
from pipeline.stage3_evaluate.questions import Question, sampling_of


def questions(config: Config, arm: Arm) -> Iterator[Question]:
    table = config.evaluate.instruction_following
    assert table is not None
    teacher_prompt = table.teacher_prompt or table.prompt
    prompt = load_prompt(teacher_prompt if arm == "teacher" else table.prompt)
    sampling = sampling_of(config, table.sampling)
    for ability, variant, _ in named_sources(config.evaluate):
        if ability != "instruction_following":
            continue
        for item in load_items(config, ability, variant):
            if not item.constraints:
                raise UserError(
                    f"evaluate.instruction_following.{variant}: item {item.id} has no constraints"
                )
            if variant == "ifeval":
                ifeval.check_instructions(item)
            messages = render(prompt, item.fields)
            yield Question(ability, variant, item, prompt.ref, messages, sampling)


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    asked = question.item.constraints
    kept = followed(question.item, question.variant, generation.text)
    broken = [c.type for c, one in zip(asked, kept, strict=True) if one is not Followed.STRICT]
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
        loose=float(Followed.BROKEN not in kept),
        reference=", ".join(c.type for c in asked),
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
        followed=kept,
    )


def followed(item: Seed, variant: str, text: str) -> tuple[Followed, ...]:
    """What became of each constraint, by place in the item's list."""
    if variant == "ifeval":
        return ifeval.followed(item, text)
    return tuple(_outcome(one, text) for one in item.constraints)


def _outcome(constraint: Constraint, text: str) -> Followed:
    if check(constraint, text).outcome is Outcome.FOLLOWED:
        return Followed.STRICT
    loosely = check_loose(constraint, text).outcome is Outcome.FOLLOWED
    return Followed.LOOSE if loosely else Followed.BROKEN
