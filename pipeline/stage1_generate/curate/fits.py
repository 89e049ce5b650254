"""`fits_student`: the whole row fits into what the student is trained on.

The trainer cuts a longer row off at its end, which is where the answer stands.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pipeline.config import Config
from pipeline.records import Example, Message, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.tokens import longest_row, rendered, student_tokenizer, text_lengths


def fits_student(config: Config, max_tokens: int | None = None) -> Filter:
    """Drop rows longer than `max_tokens` in the student's tokens, chat template included.

    Without `max_tokens`: `train.sft.max_length`, at most the positions of the model. The tokenizer
    is opened with the first row. Score: the tokens, where they had to be counted.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens is at least 1; seen {max_tokens}")

    @lru_cache(maxsize=1)
    def opened() -> tuple[Any, int | None]:
        return student_tokenizer(config), max_tokens or longest_row(config)

    @lru_cache(maxsize=256)
    def template_bytes(roles: tuple[str, ...]) -> int:
        """What the template adds to messages of these roles, which a longer text only repeats."""
        short = Example(tuple(Message(role, "x") for role in roles), (), 1.0, ())
        return len(rendered(short, opened()[0]).encode())

    def check(row: Candidate) -> Verdict:
        tokenizer, limit = opened()
        if limit is None:
            return keep("fits_student")
        examples = row.examples or (row.example,)
        try:
            # A token is a byte or more: most rows are short enough without being counted.
            if all(_bytes(e) + template_bytes(_roles(e)) <= limit for e in examples):
                return keep("fits_student")
            tokens = max(text_lengths([rendered(e, tokenizer) for e in examples], tokenizer))
        except Exception as error:  # templates are foreign code: one may refuse a system message
            return drop("fits_student", f"the student's chat template refuses the row: {error}")
        if tokens > limit:
            return drop("fits_student", f"longer than the student's {limit} tokens", tokens)
        return keep("fits_student", tokens)

    return check


def _bytes(example: Example) -> int:
    return sum(len(m.content.encode()) for m in (*example.prompt, *example.completion))


def _roles(example: Example) -> tuple[str, ...]:
    return tuple(m.role for m in (*example.prompt, *example.completion))
