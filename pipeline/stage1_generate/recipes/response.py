"""Sequence-level distillation: the teacher answers, the student learns the answer.

Source: Kim & Rush 2016 (1606.07947), Alpaca (2023). Grade B0.
Asked: the instruction. Kept: what passes the filters. Student sees: instruction -> answer.
"""

from __future__ import annotations

from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed

GRADE = Grade.TEXT


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    return render(asking, seed.fields)


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    return render(showing, seed.fields), (Message("assistant", generation.text.strip()),)
