"""Instructions made harder (in depth) or rarer (in breadth) by the teacher, in rounds.

Source: Evol-Instruct, WizardLM (2304.12244). Grade B0. Trains nothing itself: another task answers
what is harvested, and a further round evolves it again.
Asked: to rewrite one instruction in one of `ways`, chosen for each seed by a hash of its id:

    constraints   one more condition          reasoning    more steps of thought
    deepen        a deeper question           complicate   with an input: a table, code, text
    concretise    special instead of general  breadth      another, rarer one of the same field

Kept: by the paper's rules of elimination, what is not equal to its seed (ROUGE-L under `same`),
does not speak of the rewriting itself, and is no refusal. The paper's two rules about the *answer*
to an evolved instruction (a short one with "sorry"; stop words alone) are the filter `substance` of
the task that answers; with rounds as evolve -> answer -> evolve, what fails there evolves no
further. Student sees: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Generation, Grade, Request, Seed, digest
from pipeline.stage1_generate.curate.substance import apologises
from pipeline.stage1_generate.new_instructions import alike, single, size_fault, speaker_fault
from pipeline.stage1_generate.recipes import Lost, response

GRADE = Grade.TEXT
TEACHES = False

WAYS = ("constraints", "deepen", "concretise", "reasoning", "complicate", "breadth")

_META = re.compile(
    r"(?:re-?written|given|created|new|original|evolved|rephrased|modified|revised) "
    r"(?:prompt|instruction|task|version|question)|#\s?the\b|\brewrit(?:e|ten|ing)\b.{0,40}\b(?:"
    r"prompt|instruction|task)|(?:改写|给定|原始?|新)的?(?:提示|指令|任务|题目|问题)",
    re.I,
)

requests = response.requests
example = response.example


def prepare(seed: Seed, number: int, ways: Sequence[str] = WAYS) -> Seed:
    """Choose the seed's way."""
    wrong = [way for way in ways if way not in WAYS] if isinstance(ways, list | tuple) else [ways]
    if wrong or not ways:
        raise UserError(
            f"tasks.{seed.task}.options.ways: a list out of {', '.join(WAYS)}; seen: {ways!r}"
        )
    way = ways[int(digest(["way", seed.id], 8), 16) % len(ways)]
    return msgspec.structs.replace(seed, fields=seed.fields | {"way": way})


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
    *,
    same: float = 0.9,
    fewest_words: int = 4,
    most_words: int = 400,
) -> Iterator[dict[str, Any] | Lost]:
    seen: set[str] = set()
    for seed, request, generation in answers:
        text, before = single(generation.text), str(seed.fields["question"])
        fault = size_fault(text, fewest_words, most_words)
        if fault is None and alike(text, before) >= same:
            fault = "no information gained"
        if fault is None and _META.search(text) and not _META.search(before):
            fault = "speaks of the rewriting"
        if fault is None:
            fault = "a refusal" if apologises(text) else speaker_fault(text)
        if fault is None and text in seen:
            fault = "there already"
        if fault is not None:
            yield Lost(fault, text)
            continue
        seen.add(text)
        rounds = int(seed.fields.get("evolved", 0)) + 1
        yield {
            "id": f"{seed.id}/{request.id[:8]}",
            "instruction": text,
            "evolved": rounds,  # how often by now
            "way": seed.fields["way"],
            "before": before,
            "source_seed": seed.id,
            "source_request": request.id,
        }
