"""Rationales: the teacher reasons in n samples, the right ones teach the student to reason.

Source: Fine-tune-CoT (2212.10071), "diverse reasoning" is `samples` > 1. Grade B0.
Asked: the question, with a request to reason or with worked examples. Kept: with the filter
`answer`, the samples whose final answer is the reference. Student sees: question -> rationale and
answer. A reasoning model's hidden thoughts come before its text, between blank lines, because the
student has no such field of its own.
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
    parts = [p.strip() for p in (generation.reasoning, generation.text) if p and p.strip()]
    return render(showing, seed.fields), (Message("assistant", "\n\n".join(parts)),)
