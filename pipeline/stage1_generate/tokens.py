"""How long training rows are in the student's own tokens, rendered as the trainer renders them.

One place for the filter `fits_student` and the dataset's histogram, so that both count what the
trainer will see: prompt and completion through the student's chat template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models import student_checkpoint
from pipeline.records import Example

MAX_LENGTH = 1024  # of TRL's SFTConfig, where `train.sft` has no max_length
BATCH = 256  # rows tokenised at once; more gains nothing, the tokenizer is parallel from here


def student_tokenizer(config: Config) -> Any:
    """The student's tokenizer; a `UserError` where it cannot be opened."""
    from transformers import AutoTokenizer

    checkpoint = student_checkpoint(config)
    place = f"student.model {config.student.model!r}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision,
            trust_remote_code=config.student.serving.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{place} cannot be opened: {error}") from None
    return tokenizer


def longest_row(config: Config) -> int | None:
    """Tokens that a row may have, or None: `train.sft.max_length`, at most the model's positions.

    The trainer cuts longer rows off, and what is cut is mostly the end of the answer.
    """
    from transformers import AutoConfig

    checkpoint = student_checkpoint(config)
    folder = Path(checkpoint.source)
    if folder.is_dir():
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = model.get("text_config", model)
        positions = model.get("max_position_embeddings") or model.get("n_positions")
    else:
        options = {"revision": checkpoint.revision}
        found = AutoConfig.from_pretrained(checkpoint.source, **options).get_text_config()
        positions = getattr(found, "max_position_embeddings", None)
    wanted = config.train.sft.get("max_length", MAX_LENGTH)
    limits = [limit for limit in (wanted, positions) if isinstance(limit, int) and limit > 0]
    return min(limits, default=None)


def rendered(example: Example, tokenizer: Any) -> str:
    """Prompt and completion as one text of the student's chat template.

    A template that refuses the messages (two turns of one role, say) raises whatever it raises.
    """
    messages = [
        {"role": m.role, "content": m.content} for m in (*example.prompt, *example.completion)
    ]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    return text


def token_lengths(examples: Iterable[Example], tokenizer: Any) -> Iterator[int]:
    """The length of each row in tokens, in order; `BATCH` rows are in memory at a time."""
    source = iter(examples)
    while rows := list(islice(source, BATCH)):
        yield from text_lengths([rendered(row, tokenizer) for row in rows], tokenizer)


def text_lengths(texts: Sequence[str], tokenizer: Any) -> list[int]:
    """The length in tokens of texts that a chat template has rendered."""
    found = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
    return [len(ids) for ids in found["input_ids"]]
