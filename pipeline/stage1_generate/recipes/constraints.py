"""Verifiable instructions with rejection sampling.

Source: AutoIF (2406.13542), with a fixed library of verifiers (pipeline/constraints) instead of
verifiers written by the teacher. Grade B0.
Asked: an instruction whose constraints stand in its text, after worked examples if the teacher's
prompt has some. Kept: with the filter `constraints`, answers that follow every constraint.
Student sees: the same instruction without the examples -> answer.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed
from pipeline.stage1_generate.recipes import response

GRADE = Grade.TEXT


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    if not seed.constraints:
        raise UserError(
            f"{seed.origin}: the recipe constraints needs seeds with `constraints`; use "
            "`seeds: {generator: constrained_instructions, ...}` or give the lines some"
        )
    return render(asking, seed.fields)


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    return response.example(seed, generation, showing)
