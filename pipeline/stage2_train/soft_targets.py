"""`train.soft_targets`: the teacher's stored top-k log-probabilities as targets beside its words.

Source: Hinton et al. (1503.02531); grade B2. A row whose answer has none in the ledger, or whose
completion is not the answer's own words (a label, an answer put first), has the hard loss.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.config import Config, SoftTargets
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import grade_of
from pipeline.records import Grade, Message, digest
from pipeline.stage1_generate.used import RUNS
from pipeline.stage2_train.soft_rows import Vocabulary, soft_row


def check_soft_targets(config: Config) -> None:
    """Find what cannot work before the teacher is paid: `UserError`."""
    soft = config.train.soft_targets
    if soft is None:
        return
    place = "train.soft_targets"
    order = list(Grade)
    for task in config.tasks:
        for name in config.teachers_of(task) if task.train else ():
            teacher, sampling = config.all_teachers[name], config.sampling_of(task, name)
            if order.index(grade_of(teacher)) < order.index(Grade.TOP_LOGPROBS):
                raise UserError(
                    f"{place}: needs a teacher of grade {Grade.TOP_LOGPROBS}, and the backend "
                    f"{teacher.backend} of {name} gives {grade_of(teacher)}"
                )
            if not sampling.logprobs:
                raise UserError(
                    f"{place}: task {task.name} asks for no log-probabilities; set "
                    f"`sampling: {{logprobs: {soft.top_k}}}` at the teacher or the task (other "
                    "answers are other requests: they are asked anew)"
                )
    if config.train.sft.get("packing"):
        raise UserError(f"{place}: train.sft.packing is not possible with soft targets yet")


def with_soft_targets(config: Config, rows: Any, tokenizer: Any, max_length: int | None) -> Any:
    """The dataset `rows` (prompt, completion, source, model) tokenized, with soft targets.

    Prints the coverage; below `min_coverage` of the positions it is a `UserError`.
    """
    soft = config.train.soft_targets
    assert soft is not None
    ledgers = {model: Ledger(RUNS, model) for model in set(rows["model"])}
    vocabulary = Vocabulary(tokenizer)
    counts = {"matched": 0, "taught": 0, "rows": 0}

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        prompt = [msgspec.convert(m, Message) for m in row["prompt"]]
        completion = [msgspec.convert(m, Message) for m in row["completion"]]
        stored = ledgers[row["model"]].get(row["source"][0])
        text = stored.generation.text if stored else ""
        own_words = completion[-1].content.strip() == text.strip()
        tokens = stored.generation.logprobs if stored and own_words else None
        found = soft_row(vocabulary, prompt, completion, tokens, text, soft.top_k, max_length)
        if tokens:
            counts["rows"] += 1
            counts["matched"] += found.matched
            counts["taught"] += found.taught
        return {
            "input_ids": found.input_ids,
            "labels": found.labels,
            "soft_ids": found.soft_ids,
            "soft_logprobs": found.soft_logprobs,
        }

    name = digest([rows._fingerprint, msgspec.to_builtins(soft.model_dump()), max_length])
    encoded = rows.map(
        encode, remove_columns=rows.column_names, new_fingerprint=name, load_from_cache_file=False
    )
    _say_coverage(soft, counts, len(rows))
    return encoded


def _say_coverage(soft: SoftTargets, counts: dict[str, int], rows: int) -> None:
    coverage = counts["matched"] / counts["taught"] if counts["taught"] else 0.0
    print(
        f"soft targets: {counts['rows']:,} of {rows:,} rows have the teacher's log-probabilities; "
        f"they cover {coverage:.1%} of these rows' tokens",
        flush=True,
    )
    if coverage < soft.min_coverage:
        raise UserError(
            f"train.soft_targets: only {coverage:.1%} of the tokens have the teacher's "
            f"probabilities, and min_coverage is {soft.min_coverage:.0%}. Teacher and student "
            "most likely have different tokenizers: take a student of the teacher's family, or "
            "leave soft_targets out"
        )
