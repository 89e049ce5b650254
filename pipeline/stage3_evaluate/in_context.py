"""In-context learning: accuracy against the number k of demonstrations, on the same items.

Metric: accuracy of the label at each k; what counts is the curve. Items come with their own
class-balanced, nested shots (k=2 is the beginning of k=4), so every item is its own draw.
Worked example: shots "fig -> zop, lynx -> kib", query "plum": right is "zop".
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.config_evaluate import Arm
from pipeline.errors import UserError
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Extraction, Finish, Generation
from pipeline.stage3_evaluate.answers import extract_label
from pipeline.stage3_evaluate.items import load_items
from pipeline.stage3_evaluate.questions import Question, sampling_of


def questions(config: Config, arm: Arm) -> Iterator[Question]:
    table = config.evaluate.in_context
    assert table is not None
    teacher_prompt = table.teacher_prompt or table.prompt
    prompt = load_prompt(teacher_prompt if arm == "teacher" else table.prompt)
    sampling = sampling_of(config, table.sampling)
    for task in table.tasks:
        for item in load_items(config, "in_context", task.name):
            shots = item.fields.get("shots")
            if not isinstance(shots, list) or len(shots) < max(table.shots):
                raise UserError(
                    f"evaluate.in_context.tasks.{task.name}: item {item.id} has "
                    f"{len(shots or [])} shots, and evaluate.in_context.shots asks for "
                    f"{max(table.shots)}"
                )
            for k in table.shots:
                messages = render(prompt, item.fields | {"shots": shots[:k]})
                yield Question(
                    "in_context", f"{task.name} k={k}", item, prompt.ref, messages, sampling
                )


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    found, value = extract_label(generation.text, question.item.fields["labels"], generation.finish)
    right = found is Extraction.VALUE and value == question.item.reference
    return Answer(
        model=arm,
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text=generation.text,
        finish=Finish(generation.finish),
        extraction=found,
        extracted=value,
        correct=float(right),
        reference=question.item.reference,
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
    )
