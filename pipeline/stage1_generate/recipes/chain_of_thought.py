"""Rationales: the teacher reasons in n samples, the right ones teach the student to reason.

Source: Fine-tune-CoT (2212.10071), "diverse reasoning" is `samples` > 1. Grade B0.
Asked: the question, with a request to reason (chain_of_thought_zero_shot.yaml) or with worked
examples (chain_of_thought.yaml). Kept: with the filter `answer`, the samples whose final answer is
the reference; with `diverse_rationales`, those of a seed that differ in their equations.
Student sees: question -> rationale and answer. A reasoning model's hidden thoughts come before
its text, between blank lines, because the student has no such field of its own.

Option `answer_first: 0.5`: for this share of the seeds (by a hash of their ids) the student sees
the answer before the rationale, view "answer_first". Such a student cannot use the rationale to
find the answer: with 1.0 it is the control that tells what the steps themselves are worth.
"""

from __future__ import annotations

from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed
from pipeline.stage1_generate.rationales import answer_sentence, parts, stated_answer
from pipeline.stage1_generate.recipes import Row, response
from pipeline.stage1_generate.shares import chosen

GRADE = Grade.TEXT

requests = response.requests


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    parts = [p.strip() for p in (generation.reasoning, generation.text) if p and p.strip()]
    return render(showing, seed.fields), (Message("assistant", "\n\n".join(parts)),)


def rows(
    seed: Seed, generation: Generation, showing: Prompt, *, answer_first: float = 0.0
) -> list[Row]:
    prompt, completion = example(seed, generation, showing)
    turned = _answer_first(seed, generation, completion[0].content)
    if turned is None or not chosen(seed, answer_first, "answer_first"):
        return [Row(prompt, completion)]
    return [Row(prompt, (Message("assistant", turned),), view="answer_first")]


def _answer_first(seed: Seed, generation: Generation, text: str) -> str | None:
    """The completion with its answer in front, and nowhere stated after; None without an answer."""
    value = stated_answer(seed, generation)
    if value is None:
        return None
    steps, closing = parts(text)
    # The evaluation reads the last statement: with one left at the end, the steps would still
    # come before the answer that counts.
    return f"{closing or answer_sentence(value, text)}\n\n{steps}"
