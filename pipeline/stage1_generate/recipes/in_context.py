"""Episodes of k demonstrations and a query, labelled by the teacher: learning to learn from shots.

Source: in-context learning distillation (2212.10670), MetaICL episodes (2110.15943), arbitrary
symbols as labels (2305.08298). Grade B0.
Asked: all the demonstrations of a seed and its query. Kept: with the filter `answer`, labels that
fit. Student sees: k of them (k goes round over `options.shots` of the task) and the query ->
the label alone. The ability to *use* shots is what is trained, not this one mapping.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Extraction, Generation, Grade, Message, Seed
from pipeline.stage3_evaluate.answers import extract_label

GRADE = Grade.TEXT


def prepare(seed: Seed, number: int, shots: list[int] | None = None) -> Seed:
    """Give a seed the number of shots its student will see: `shots` of the options, in turn."""
    if shots is None:
        return seed
    fine = isinstance(shots, list) and all(type(k) is int and k >= 0 for k in shots)
    if not fine or not shots:
        raise UserError(
            f"tasks.{seed.task}.options.shots: a list of at least one whole number from 0, as in "
            f"[2, 4, 8]; seen: {shots!r}"
        )
    fields = seed.fields | {"student_shots": shots[number % len(shots)]}
    return msgspec.structs.replace(seed, fields=fields)


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    if not isinstance(seed.fields.get("shots"), list):
        raise UserError(
            f"{seed.origin}: the recipe in_context needs seeds with `shots` "
            "([{text, label}, ...]) and `labels`; the generators symbol_mapping and "
            "classification make them"
        )
    return render(asking, seed.fields)


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    fields: dict[str, Any] = dict(seed.fields)
    fields["shots"] = fields["shots"][: fields.get("student_shots", len(fields["shots"]))]
    found, label = extract_label(generation.text, fields["labels"], generation.finish)
    text = label if found is Extraction.VALUE and label else generation.text.strip()
    return render(showing, fields), (Message("assistant", text),)
