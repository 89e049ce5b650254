"""Constrained instructions in a person's words: the teacher rewrites what the templates say.

Source: the idea of checking instructions against their verifiers is AutoIF's (2406.13542, step
"back-translation"); here the verifier is there first and the words come after. Grade B0.
Asked: an instruction with its constraints as templates say them, to be put naturally. Kept: what
passes the filters. The answers are no rows for a student but the seeds of another task (`recipe:
constraints`, `seeds: {from: ...}`), which answers them and verifies.
A rewritten instruction is lost (counted by reason in the step's notes) when it no longer names a
parameter (each number, keyword and letter must stand in it) or the requirement itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.constraints.phrasing import unnamed
from pipeline.records import Generation, Grade, Request, Seed, digest
from pipeline.stage1_generate.recipes import Lost, constraints

GRADE = Grade.TEXT
TEACHES = False

requests = constraints.requests
example = constraints.example


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
) -> Iterator[dict[str, Any] | Lost]:
    """The rewritten instructions that still ask for everything, with their constraints."""
    seen: set[str] = set()
    for seed, request, generation in answers:
        text = generation.text.strip().strip('"“”').strip()
        language = str(seed.fields.get("language", "en"))
        missing = [unnamed(one, text, language) for one in seed.constraints]
        if lost := [one for one in missing if one]:
            yield Lost(f"no longer says what {lost[0].split(':')[0]} is about", text)
            continue
        identity = f"{seed.id}/{digest(text, 8)}"  # one group with its parent
        if identity in seen:
            yield Lost("the same words again", text)
            continue
        seen.add(identity)
        kept = {k: v for k, v in seed.fields.items() if k not in ("question", "instruction")}
        yield kept | {
            "id": identity,
            "instruction": text,
            "constraints": [msgspec.to_builtins(one) for one in seed.constraints],
            "source_seed": seed.id,
            "source_request": request.id,
        }
