"""Rows are measured in the student's tokens, as the trainer will render them."""

from __future__ import annotations

import pytest

from pipeline.config import Config, load_config
from pipeline.records import Example, Message
from pipeline.stage1_generate.tokens import (
    BATCH,
    MAX_LENGTH,
    longest_row,
    rendered,
    student_tokenizer,
    token_lengths,
)
from tests.project import Project


@pytest.fixture
def config(project: Project) -> Config:
    return load_config(project.config)


def example(question: str, answer: str) -> Example:
    return Example((Message("user", question),), (Message("assistant", answer),), 1.0, ("r",))


def test_a_length_is_what_the_trainer_will_see(config: Config) -> None:
    tokenizer = student_tokenizer(config)
    rows = [example("2 + 3?", "5" * (i % 7)) for i in range(BATCH + 3)]
    lengths = list(token_lengths(iter(rows), tokenizer))
    assert len(lengths) == len(rows)
    for row, length in zip(rows[:8], lengths, strict=False):
        messages = [{"role": m.role, "content": m.content} for m in (*row.prompt, *row.completion)]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        assert length == len(ids)
    assert rendered(rows[1], tokenizer).startswith("<|im_start|>user\n2 + 3?<|im_end|>")


def test_the_longest_row_is_the_smaller_of_the_trainers_and_the_models(project: Project) -> None:
    assert longest_row(load_config(project.config)) == MAX_LENGTH
    project.edit(train__sft={"max_length": 100})
    assert longest_row(load_config(project.config)) == 100
    project.edit(train__sft={"max_length": None})
    assert longest_row(load_config(project.config)) == 2048  # of the tiny model


def test_the_default_is_the_trainers() -> None:
    from trl import SFTConfig

    assert SFTConfig.__dataclass_fields__["max_length"].default == MAX_LENGTH
