"""A project's student, changed and opened."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import Config, load_config
from pipeline.models import student_checkpoint
from tests.project import Project

CONVERSATION = [
    {"role": "user", "content": "one and one?"},
    {"role": "assistant", "content": "two"},
]


def student(project: Project, **changes: Any) -> Config:
    project.edit(**{f"student__{key}": value for key, value in changes.items()})
    return load_config(project.config, [])


def opened(config: Config) -> tuple[Any, Any]:
    folder = student_checkpoint(config).source
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def rendered(tokenizer: Any) -> str:
    return str(tokenizer.apply_chat_template(CONVERSATION, tokenize=False))
