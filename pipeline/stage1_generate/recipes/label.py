"""The classical use of distillation: the teacher labels texts, the student learns the label alone.

Source: black-box distillation as it is done for classifiers and taggers; the vote over several
samples is self-consistency's (2203.11171). Grade B0.
Asked: the text, with the label set in the prompt. The config fixes the set by one option:

    labels: [negative, positive]         classification
    entities: [person, place]            a JSON list of {text, type}, each span copied from the text
    schema: {type: object, ...}          extraction into JSON (or the task's `response_schema`)

Kept: by the filter `label_set`, which this recipe always has, answers that stay within the set;
with `samples` above 1 and the filter `vote`, those that most samples agree with. Student sees:
the text -> the label, or canonical JSON, alone. Where seeds have an `answer` (the gold label),
2_label_quality.json gives precision, recall and F1 of each class.
As seeds of another task (`seeds: {from: ...}`): {text, answer}, the teacher's label as the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Request, Seed
from pipeline.stage1_generate.labelling import read
from pipeline.stage1_generate.recipes import Lost, response

GRADE = Grade.TEXT

requests = response.requests
FILTERS: dict[str, dict[str, object]] = {"label_set": {}}
_SETS = {"labels": "labels", "entities": "entity_types", "schema": "schema"}


def prepare(
    seed: Seed,
    number: int,
    *,
    labels: list[str] | None = None,
    entities: list[str] | None = None,
    schema: dict[str, Any] | None = None,
) -> Seed:
    """Put the label set where prompts and filters find it."""
    place = f"tasks.{seed.task}.options"
    given = {"labels": labels, "entities": entities, "schema": schema}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UserError(f"{place}: give one of labels, entities and schema; seen: {named}")
    for name in named:
        value: Any = given[name]
        if name != "schema":
            _require_names(value, f"{place}.{name}")
        elif not isinstance(value, dict):
            raise UserError(f"{place}.schema: a JSON schema is a table; seen: {value!r}")
        seed = msgspec.structs.replace(seed, fields=seed.fields | {_SETS[name]: value})
    if labels is not None and seed.reference is not None and seed.reference not in labels:
        raise UserError(
            f"{seed.origin}: the gold label {seed.reference!r} is not in {place}.labels: "
            f"{', '.join(labels)}; correct the list, or map the file's own names with `answers:` "
            "(docs/recipes.md)"
        )
    gold = read(seed, seed.reference) if named and seed.reference is not None else None
    if gold is not None and gold.canonical is None:
        raise UserError(
            f"{seed.origin}: the gold answer cannot be read: {gold.problem}; correct the line, or "
            "leave its `answer` out"
        )
    return seed


def _require_names(value: Any, place: str) -> None:
    fine = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
    if not fine or len(set(value)) < max(len(value), 1):
        raise UserError(f"{place}: a list of different names, as [yes, no]; seen: {value!r}")


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    label = read(seed, generation.text, generation.finish).canonical
    shown = generation.text.strip() if label is None else label
    return render(showing, seed.fields), (Message("assistant", shown),)


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
) -> Iterator[dict[str, Any] | Lost]:
    """Labelled texts, one for each seed: the first accepted answer's label."""
    seen: set[str] = set()
    for seed, request, generation in answers:
        label = read(seed, generation.text, generation.finish).canonical
        if label is None:
            yield Lost("no label", generation.text)
        elif seed.id not in seen:
            seen.add(seed.id)
            fields = {k: v for k, v in seed.fields.items() if k not in _SETS.values()}
            yield fields | {
                "id": seed.id,
                "answer": label,
                "source_seed": seed.id,
                "source_request": request.id,
            }
