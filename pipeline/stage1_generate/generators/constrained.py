"""Instructions of a file with verifiable constraints added, as prose and as records."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from pipeline import constraints
from pipeline.errors import UserError
from pipeline.records import Constraint, digest
from pipeline.stage1_generate.generators.options import read_rows, whole, wholes

DRAWS = 60  # attempts to find constraints that go together and were not asked for yet


def constrained_instructions(
    n: int,
    seed: int,
    language: str = "en",
    topics: str = "",
    types: list[str] | None = None,
    per_topic: int | None = None,
    combine: int | list[int] = 1,
    examples: str = "",
) -> Iterator[dict[str, Any]]:
    """Rows {id, instruction, base, topic, constraints: [{type, params}], language}.

    `topics` is a JSONL file of {topic, instruction}; `types` the constraint types (all that the
    language has, if it is left out), used equally often; `combine` how many at a time, 1 to 3, one
    number or several in turn. `per_topic` limits how often an instruction is used; without it all
    are used equally often. Constraints that contradict each other are never asked for together.
    `examples` is a JSONL file of {type, params, instruction, answer}: each row then has `examples`,
    a list of {user, assistant} with worked answers for just its types (a small teacher copies the
    form of what it was shown, so examples of other types do it no good).
    """
    rows = read_rows("topics", topics, ("topic", "instruction"), language)
    allowed = _types(types, language)
    counts = wholes("combine", combine, 1, min(3, len(allowed)))
    rounds = -(-n // len(rows)) if per_topic is None else whole("per_topic", per_topic, 1, 10_000)
    if n > rounds * len(rows):
        raise UserError(
            f"generator constrained_instructions: {len(rows)} topics x per_topic {rounds} gives "
            f"{rounds * len(rows)} rows, {n} asked for; write n: {rounds * len(rows)} or raise "
            "per_topic"
        )
    worked = _worked_examples(examples, allowed, language) if examples else {}
    rng = random.Random(f"constrained_instructions {seed}")
    rng.shuffle(rows)
    turn = rng.sample(allowed, len(allowed))
    seen: set[str] = set()
    for number in range(n):
        place, turn_of_topic = number % len(rows), number // len(rows)
        # Shifting by one every round gives a topic another type each time it comes round.
        first = turn[(place + turn_of_topic * (1 + len(rows))) % len(turn)]
        count = counts[number % len(counts)]
        row = rows[place]
        asked = _draw(first, allowed, count, rng, language, row, seen)
        identity = digest([row["instruction"], asked], 12)
        seen.add(identity)
        sentences = [constraints.describe(one, language, identity) for one in asked]
        joint = " " if language == "en" else ""
        shown = [turn for one in asked for turn in worked.get(one.type, ())]
        yield {
            "id": f"constrained-{identity}",
            "instruction": joint.join([str(row["instruction"]), *sentences]),
            "base": row["instruction"],
            "topic": row["topic"],
            "constraints": [{"type": one.type, "params": one.params} for one in asked],
            "language": language,
        } | ({"examples": shown} if examples else {})


def _worked_examples(path: str, types: list[str], language: str) -> dict[str, list[dict[str, str]]]:
    """Turns {user, assistant} for each type; every answer is checked, and every type has some."""
    turns: dict[str, list[dict[str, str]]] = {}
    needed = ("type", "instruction", "answer")
    for number, row in enumerate(read_rows("examples", path, needed, language)):
        one = Constraint(str(row["type"]), row.get("params") or {})
        if one.type not in types:
            continue
        seen = constraints.check(one, str(row["answer"]))
        if seen.outcome is constraints.Outcome.BROKEN:
            raise UserError(
                f"{path}: the answer {row['answer']!r} breaks {one.type}: {seen.reason}"
            )
        joint = " " if language == "en" else ""
        asked = joint.join(
            [str(row["instruction"]), constraints.describe(one, language, str(number))]
        )
        turns.setdefault(one.type, []).append({"user": asked, "assistant": str(row["answer"])})
    if missing := [name for name in types if name not in turns]:
        raise UserError(
            f"{path} has no example in {language!r} for {', '.join(missing)}; write one, or leave "
            "the type or the option `examples` out"
        )
    return turns


def _types(types: list[str] | None, language: str) -> list[str]:
    spoken = [name for name in constraints.types() if language in constraints.languages(name)]
    if types is None:
        return spoken
    if not isinstance(types, list) or not types:
        raise UserError(f"option types is {types!r}; write a list such as [bullets, no_comma]")
    if unknown := [name for name in types if name not in spoken]:
        raise UserError(
            f"option types: {', '.join(map(str, unknown))} cannot be asked for in {language!r}; "
            f"known: {', '.join(spoken)}"
        )
    return list(dict.fromkeys(types))


def _draw(
    first: str,
    allowed: list[str],
    count: int,
    rng: random.Random,
    language: str,
    row: dict[str, Any],
    seen: set[str],
) -> list[Constraint]:
    """`count` constraints, the first of type `first`, that go together and are new for the row."""
    for attempt in range(DRAWS):
        # A type without parameters cannot be asked twice of one topic: then another one begins.
        begin = first if attempt < DRAWS // 3 else rng.choice(allowed)
        asked = [constraints.draw(begin, rng, language)]
        for name in rng.sample(allowed, len(allowed)):
            one = constraints.draw(name, rng, language)
            if len(asked) < count and all(constraints.conflict(one, o) is None for o in asked):
                asked.append(one)
        if len(asked) == count and digest([row["instruction"], asked], 12) not in seen:
            return asked
    raise UserError(
        f"generator constrained_instructions: no new set of {count} constraints that go together "
        f"for the topic {row['topic']!r} among the types {', '.join(allowed)}; lower n, per_topic "
        "or combine, or allow more types"
    )
