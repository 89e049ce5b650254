"""Episodes of k demonstrations and a query, labelled by the teacher: learning to learn from shots.

Source: in-context learning distillation (2212.10670), MetaICL episodes (2110.15943), arbitrary
symbols as labels (2305.08298), labels of the demonstrations dealt at random (2202.12837). Grade B0.
Asked: all the demonstrations of a seed and its query, with their own labels. Kept: with the
filter `answer`, labels that fit. Student sees: k of them and the query -> the label alone. The
ability to *use* shots is what is trained, not this one mapping.

Options:
    shots: [2, 4, 8] or {from: 1, to: 8}    k, in turn; or drawn evenly from the range for each seed
    labels: {natural: 0.5, symbols: 0.3, flipped: 0.1, useless: 0.1}
        shares of the seeds, drawn by a hash of their ids. Over a whole episode, query included:
        symbols   every label has a nonsense word instead: only the shots say which
        flipped   every label stands for the next one: the shots against what the model knows
        useless   the shots have the right set of labels, dealt out at random, and the answer
                  stays right: they show the form of an answer, and for the rest it must know
        With symbols and flipped labels k is at least the number of labels: one that no shot shows
        cannot be known.
    Answers that are lists (`list_functions`) have no labels: with them, natural alone.
    episodes: 8    the seeds are labelled texts (`text`, `answer`), such as a task of the recipe
        `label` makes; each becomes the query of an episode with so many of the others as shots
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Extraction, Generation, Grade, Message, Seed
from pipeline.stage1_generate.generators.episodes import episodes_of, remapped
from pipeline.stage1_generate.shares import drawn, evenly
from pipeline.stage3_evaluate.answers import extract_label
from pipeline.stage3_evaluate.lists import extract_list

GRADE = Grade.TEXT
HOW = ("natural", "symbols", "flipped", "useless")


def arrange(seeds: Iterator[Seed], *, episodes: int | None = None) -> Iterator[Seed]:
    """With `episodes`, labelled texts -> episodes. Memory: all texts of the task."""
    if episodes is None:
        yield from seeds
        return
    held = list(seeds)
    place = f"tasks.{held[0].task}.options.episodes" if held else "episodes"
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise UserError(f"{place}: how many shots an episode has, from 1; seen: {episodes!r}")
    for seed in held:
        if "text" not in seed.fields or seed.reference is None:
            raise UserError(
                f"{seed.origin}: episodes are made of lines with `text` and `answer` (the label); "
                f"seen: {', '.join(sorted(seed.fields))}"
            )
    labelled = [(str(seed.fields["text"]), str(seed.reference)) for seed in held]
    made = episodes_of(labelled, episodes, [seed.id for seed in held], place)
    for seed, episode in zip(held, made, strict=True):
        yield msgspec.structs.replace(seed, fields=seed.fields | episode)


def prepare(
    seed: Seed,
    number: int,
    *,
    shots: list[int] | dict[str, int] | None = None,
    labels: dict[str, float] | None = None,
) -> Seed:
    """Give a seed what its student will see: the number of shots, and how labels are named."""
    fields = dict(seed.fields)
    if shots is not None:
        fields["student_shots"] = _shots(seed, number, shots)
    if labels is not None and isinstance(fields.get("shots"), list):
        if not fields.get("labels") and labels != {"natural": 1}:
            raise UserError(
                f"tasks.{seed.task}.options.labels: {seed.origin} has no labels that could have "
                "other names (an answer that is a list has none); take the option out"
            )
        how = drawn(seed, labels, "labels", HOW)
        fields["student_labels_are"] = how
        if how in ("symbols", "flipped"):
            fields["student_labels"] = remapped(fields["labels"], how, seed.id)
            least = min(len(fields["labels"]), len(fields["shots"]))
            fields["student_shots"] = max(fields.get("student_shots", least), least)
    return msgspec.structs.replace(seed, fields=fields)


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    if not isinstance(seed.fields.get("shots"), list):
        raise UserError(
            f"{seed.origin}: the recipe in_context needs seeds with `shots` "
            "([{text, label}, ...]) and `labels`; the generators symbol_mapping, classification "
            "and list_functions make them, and the option `episodes: 8` makes them of labelled "
            "texts"
        )
    return render(asking, seed.fields)


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    fields: dict[str, Any] = dict(seed.fields)
    names: dict[str, str] = fields.get("student_labels", {})
    shown = fields["shots"][: fields.get("student_shots", len(fields["shots"]))]
    if fields.get("student_labels_are") == "useless":
        # Dealt from the whole set, not from the shots' own labels: one shot would keep its own.
        dealt = [fields["labels"][i % len(fields["labels"])] for i in range(len(shown))]
        random.Random(f"useless {seed.id}").shuffle(dealt)
        shown = [shot | {"label": label} for shot, label in zip(shown, dealt, strict=True)]
    fields["shots"] = [shot | {"label": names.get(shot["label"], shot["label"])} for shot in shown]
    text = generation.text.strip()
    if fields.get("answer_kind") == "list":
        found, value = extract_list(generation.text, generation.finish)
    else:
        fields["labels"] = sorted(names.get(label, label) for label in fields["labels"])
        found, value = extract_label(generation.text, seed.fields["labels"], generation.finish)
    if found is Extraction.VALUE and value:
        text = names.get(value, value)
    return render(showing, fields), (Message("assistant", text),)


def _shots(seed: Seed, number: int, shots: Any) -> int:
    place = f"tasks.{seed.task}.options.shots"
    if isinstance(shots, dict):
        low: Any = shots.get("from")
        high: Any = shots.get("to")
        if set(shots) != {"from", "to"} or not (_whole(low) and _whole(high) and low <= high):
            raise UserError(
                f"{place}: a range is {{from: 1, to: 8}}, whole numbers from 0; seen: {shots!r}"
            )
        return evenly(seed, low, high, "shots")
    if not isinstance(shots, list) or not shots or not all(_whole(k) for k in shots):
        raise UserError(
            f"{place}: a list of at least one whole number from 0, as in [2, 4, 8], or a range, as "
            f"in {{from: 1, to: 8}}; seen: {shots!r}"
        )
    return int(shots[number % len(shots)])


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0
