"""In-context learning: accuracy against the number k of demonstrations, on the same items.

Metric: accuracy of the label (or list) at each k; what counts is the curve. The shots are nested
(k=2 is the beginning of k=4) and as balanced as k allows; with several draws each item is asked
with several sets of shots, and its mean counts. What the labels of the shots say may be changed
(`label_conditions.py`).
Worked example: shots "fig -> zop, lynx -> kib", query "plum": right is "zop".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.config_evaluate import Arm, InContextItems, Labels
from pipeline.errors import UserError
from pipeline.prompts import load_prompt, render
from pipeline.records import Answer, Extraction, Finish, Generation, Seed
from pipeline.stage3_evaluate.answers import extract_label
from pipeline.stage3_evaluate.label_conditions import renamed, shown
from pipeline.stage3_evaluate.labelled_texts import task_items
from pipeline.stage3_evaluate.lists import extract_list, same_list
from pipeline.stage3_evaluate.questions import Question, sampling_of
from pipeline.stage3_evaluate.shot_draws import Shot, drawn_deck, in_order, own_draw


def questions(config: Config, arm: Arm) -> Iterator[Question]:
    table = config.evaluate.in_context
    assert table is not None
    for task in table.tasks:
        student = task.prompt or table.prompt
        teacher = task.teacher_prompt or table.teacher_prompt or student
        prompt = load_prompt(teacher if arm == "teacher" else student)
        sampling = sampling_of(config, table.sampling | task.sampling)
        for episode in _episodes(config, task):
            messages = render(prompt, episode.item.fields | {"shots": episode.shots})
            yield Question(
                "in_context", episode.variant, episode.item, prompt.ref, messages, sampling,
                draw=episode.draw, order=episode.order,
            )  # fmt: skip


def read(question: Question, generation: Generation, arm: Arm) -> Answer:
    labels = question.item.fields.get("labels")
    reference = question.item.reference or ""
    if labels:
        found, value = extract_label(generation.text, labels, generation.finish)
        right = value == reference
    else:
        found, value = extract_list(generation.text, generation.finish)
        right = value is not None and same_list(value, reference)
    return Answer(
        model=arm,
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text=generation.text,
        finish=Finish(generation.finish),
        extraction=found,
        extracted=value,
        correct=float(found is Extraction.VALUE and right),
        reference=question.item.reference,
        question=str(question.item.fields["question"]),
        output_tokens=generation.usage.output,
        request_id=generation.request_id,
        draw=question.draw,
        order=question.order,
        chance=1 / len(labels) if labels else 0.0,
    )


class _Episode(msgspec.Struct, frozen=True):
    """An item as it is asked once; `item` has the labels and the answer of the condition."""

    item: Seed
    variant: str
    shots: list[dict[str, str]]
    draw: int
    order: int


def _episodes(config: Config, task: InContextItems) -> Iterator[_Episode]:
    """Every way in which a task's items are asked; without shots there is one a condition."""
    table = config.evaluate.in_context
    assert table is not None
    draws, orders = task.draws or table.draws, task.orders or table.orders
    for item, draw, shots in _drawn(config, task, draws):
        salt = f"{config.seed} {task.name} {draw}"
        for how in task.labels:
            asked, changed = _under(item, shots, how, salt)
            name = task.called if how == "natural" else f"{task.called}/{how}"
            for k in table.shots:
                for order in range(orders if k else 1 if draw == 0 else 0):
                    seen = in_order(changed[:k], order, salt)
                    if seen is not None:
                        yield _Episode(asked, f"{name} k={k}", seen, draw, order)


def _drawn(
    config: Config, task: InContextItems, draws: int
) -> Iterator[tuple[Seed, int, list[Shot]]]:
    """(item, draw, its shots, as many as the largest k or more)."""
    assert config.evaluate.in_context is not None
    most = max(config.evaluate.in_context.shots)
    found = task_items(config, task)
    salt = f"{config.seed} {task.name}"
    if found.pool is not None:
        decks = [drawn_deck(found.pool, most, f"{salt} {draw}") for draw in range(draws)]
        for item in found.items:
            for draw, deck in enumerate(decks):
                yield item, draw, deck.shots(str(item.fields["text"]))
        return
    for item in found.items:
        own, labelled = _own_shots(item, task, most), bool(item.fields.get("labels"))
        for draw in range(draws):
            yield item, draw, own_draw(own, labelled, draw, f"{salt} {item.id} {draw}")


def _own_shots(item: Seed, task: InContextItems, most: int) -> list[Shot]:
    place = f"evaluate.in_context.tasks.{task.name}: item {item.id}"
    shots: Any = item.fields.get("shots")
    if not isinstance(shots, list) or len(shots) < most:
        raise UserError(
            f"{place} has {len(shots or [])} shots, and evaluate.in_context.shots asks for {most}"
        )
    lists = item.fields.get("answer_kind") == "list"
    if not lists and not item.fields.get("labels"):
        raise UserError(
            f"{place} ({item.origin}) has no labels, and no `answer_kind: list`; an episode of "
            "your own needs {text, answer, labels: [...], shots: [{text, label}]}"
        )
    if lists and task.labels != ["natural"]:
        raise UserError(
            f"evaluate.in_context.tasks.{task.name}.labels: answers that are lists have no labels "
            "to change; write labels: [natural], or leave it out"
        )
    _check_answer(item, f"{place} ({item.origin})")
    try:
        return [Shot(str(shot["text"]), str(shot["label"])) for shot in shots]
    except (KeyError, TypeError):
        raise UserError(f"{place}: a shot is {{text, label}}; seen {shots!r:.120}") from None


def _check_answer(item: Seed, place: str) -> None:
    """An episode whose answer can never be right is a mistake to be told about beforehand."""
    labels: Any = item.fields.get("labels")
    if not labels:
        if item.reference is None or not same_list(item.reference, item.reference):
            raise UserError(
                f"{place} has `answer_kind: list` and the answer {item.reference!r}; write a list "
                "of whole numbers, as [3, 1]"
            )
        return
    texts = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not texts or not all(label.strip() for label in labels):
        raise UserError(f"{place}: labels are a list of texts, as [zop, kib]; seen: {labels!r:.80}")
    if item.reference not in labels:
        raise UserError(
            f"{place} has the answer {item.reference!r}, which is none of its labels: "
            + ", ".join(labels)
        )


def _under(
    item: Seed, shots: list[Shot], how: Labels, salt: str
) -> tuple[Seed, list[dict[str, str]]]:
    """The item and its shots with what their labels are called under a condition."""
    labels = item.fields.get("labels") or []
    names = renamed(labels, how, salt)
    if how in ("flipped", "arbitrary"):
        fields = item.fields | {"labels": sorted(names.values())}
        answer = names.get(item.reference or "", item.reference)
        item = msgspec.structs.replace(item, fields=fields, reference=answer)
    return item, shown(shots, names, how, salt)
