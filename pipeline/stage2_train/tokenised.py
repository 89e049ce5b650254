"""Rows as the trainer takes them: TRL itself tokenises, masks and cuts them, without the student.

A SFTTrainer needs a model to exist, and its dataset does not depend on it. So a Llama of a few
weights stands in, with the student's tokenizer, and the settings of `train.sft` that say what
becomes of a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.stage1_generate.tokens import student_tokenizer
from pipeline.stage2_train.settings import sft_arguments
from pipeline.stage2_train.soft_targets import Coverage, completion_start, with_soft_targets
from pipeline.stage2_train.stand_in import stand_in
from pipeline.stage2_train.targets import IGNORED, SOFT

# Of TRL's SFTConfig: what decides on the tokens of a row.
_DECIDES = (
    "max_length",
    "truncation_mode",
    "chat_template_path",
    "eos_token",
    "pad_token",
    "assistant_only_loss",
    "completion_only_loss",
)


class TokenRow(msgspec.Struct, frozen=True):
    """One row; what is per token is of the whole row, before `max_length`."""

    tokens: list[str]
    taught: list[bool]  # is there a loss?
    soft: list[bool]  # ... with the teacher's probabilities
    kept: tuple[int, int]  # from, to: what max_length leaves; (0, 0) of a row left out
    left_out: str  # the end of the prompt that is in no training row
    ends: bool  # is a token taught, at which generation stops?


class TokenRows(msgspec.Struct, frozen=True):
    rows: list[TokenRow]
    max_length: int | None
    stops: list[str]  # tokens at which generation stops
    coverage: Coverage | None  # of these rows, with soft targets


def token_rows(config: Config, rows: Sequence[dict[str, Any]]) -> TokenRows:
    """How rows of 3_dataset (prompt, completion, source, model) are tokenised for stage 1."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    wanted = ("prompt", "completion", "source", "model")
    data = Dataset.from_list([{name: row[name] for name in wanted if name in row} for row in rows])
    data = data.add_column("number", list(range(len(rows))))
    whole_rows, trainer = _prepared(config, data, cut=False)
    kept_rows, _ = _prepared(config, data, cut=True)
    tokenizer, coverage = trainer.processing_class, None
    if config.train.soft_targets is not None:
        whole_rows, coverage = with_soft_targets(config, whole_rows, tokenizer)
    kept = {row["number"]: len(row["input_ids"]) for row in kept_rows}
    found = [_token_row(row, kept.get(row["number"], 0), trainer) for row in whole_rows]
    limit = sft_arguments(config, Path("."), _first_stage(config)).max_length
    return TokenRows(found, limit, [_text(tokenizer, t) for t in _stops(tokenizer)], coverage)


def _token_row(row: dict[str, Any], size: int, trainer: Any) -> TokenRow:
    """Of a whole row of the trainer's dataset; `size`: what is left of it after `max_length`."""
    tokenizer, ids = trainer.processing_class, row["input_ids"]
    begin = len(ids) - size if trainer.args.truncation_mode == "keep_end" and size else 0
    taught = [label != IGNORED for label in row["labels"]]
    prompt = tokenizer.apply_chat_template(
        row["prompt"],
        add_generation_prompt=True,
        return_dict=True,
        chat_template=trainer.chat_template,
    )["input_ids"]
    stops = _stops(tokenizer)
    return TokenRow(
        tokens=[_text(tokenizer, token) for token in ids],
        taught=taught,
        soft=[bool(entry) for entry in row.get(SOFT, [b""] * len(ids))],
        kept=(begin, begin + size),
        left_out=tokenizer.decode(prompt[completion_start(row) :]),
        ends=any(taught[i] and ids[i] in stops for i in range(begin, begin + size)),
    )


def _first_stage(config: Config) -> dict[str, Any]:
    return config.train.stages[0].sft if config.train.stages else {}


def _prepared(config: Config, rows: Any, *, cut: bool) -> tuple[Any, Any]:
    """(the dataset of a SFTTrainer, that trainer); `cut=False`: without `max_length`."""
    import transformers
    from trl import SFTConfig, SFTTrainer

    transformers.utils.logging.disable_progress_bar()
    tokenizer = student_tokenizer(config)
    with tempfile.TemporaryDirectory() as folder:
        true = sft_arguments(config, Path(folder), _first_stage(config))
        settings = {name: getattr(true, name) for name in _DECIDES}
        if not cut:
            settings["max_length"] = None
        arguments = SFTConfig(
            **settings,
            output_dir=folder,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=stand_in(tokenizer),
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
        )
    return trainer.train_dataset, trainer


def _stops(tokenizer: Any) -> list[int]:
    """The tokens at which generation stops: the tokenizer's own, and what the model comes with."""
    from transformers import GenerationConfig

    found = [tokenizer.eos_token_id]
    try:
        more = GenerationConfig.from_pretrained(tokenizer.name_or_path).eos_token_id
    except OSError:  # it comes with none
        more = None
    found += more if isinstance(more, list) else [more]
    return sorted({token for token in found if token is not None})


def _text(tokenizer: Any, token: int) -> str:
    text: str = tokenizer.decode([token])
    # A piece of a character has no text of its own.
    return tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text or not text else text
