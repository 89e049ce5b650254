"""`train.soft_targets`: the teacher's stored top-k log-probabilities as targets beside its words.

Source: Hinton et al. (1503.02531); grade B2. A row whose answer has none in the ledger, or whose
completion is not the answer's own words (a label, an answer put first), has the hard loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from pipeline.config import Config
from pipeline.config_evaluate import CONTROL
from pipeline.config_train import SoftTargets, Stage
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import grade_of
from pipeline.records import Grade, digest
from pipeline.stage1_generate.used import RUNS
from pipeline.stage2_train.ranks import rank
from pipeline.stage2_train.soft_rows import Vocabulary, soft_row
from pipeline.stage2_train.targets import IGNORED, SOFT, check_loss_settings


def check_soft_targets(config: Config) -> None:
    """Find what cannot work before the teacher is paid: `UserError`."""
    soft = config.train.soft_targets
    if soft is None:
        return
    place = "train.soft_targets"
    other_words = [f"{CONTROL}{name}" for name in ("gold", "label_only")]
    if refused := [arm for arm in config.evaluate.arms if arm in other_words]:
        raise UserError(
            f"{place}: the arm {refused[0]} is trained on other words than the teacher's, which "
            "have no log-probabilities; take control-random, or leave out the arm or soft_targets"
        )
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
            taken_at = sampling.logprobs_temperature or 1.0
            if taken_at != soft.taken_at:
                raise UserError(
                    f"{place}: temperature {soft.temperature:g} with support {soft.support} needs "
                    f"log-probabilities taken at {soft.taken_at:g}, and task {task.name} takes "
                    f"them at {taken_at:g}: top-k ones at one temperature do not give those at "
                    "another (that needs the sum over the whole vocabulary). Set `sampling: "
                    f"{{logprobs_temperature: {soft.taken_at:g}}}` (backends vllm and "
                    "transformers; they are asked anew), or take the approximation `support: "
                    "topk_renormalised` of those at 1"
                )
    for stage in config.train.stages or [Stage()]:
        check_loss_settings(config.train.sft | stage.sft)


class Coverage(msgspec.Struct, frozen=True):
    """How much of a dataset the teacher's log-probabilities reach."""

    rows: int
    found: int  # rows whose answer has log-probabilities in the ledger
    taught: int  # tokens of these rows with a loss
    matched: int  # of them, those with soft targets

    @property
    def share(self) -> float:
        return self.matched / self.taught if self.taught else 0.0


def with_soft_targets(config: Config, rows: Any, tokenizer: Any) -> tuple[Any, Coverage]:
    """Add the column `soft` to rows that TRL has tokenised and that are still whole.

    They have `input_ids`, `labels`, `completion`, `source` and `model`.
    """
    soft = config.train.soft_targets
    assert soft is not None
    ledgers = {model: Ledger(RUNS, model) for model in set(rows["model"])}
    vocabulary = Vocabulary(tokenizer)
    counts = {"found": 0, "taught": 0, "matched": 0}

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        stored = ledgers[row["model"]].get(row["source"][0])
        text = stored.generation.text if stored else ""
        own_words = row["completion"][-1]["content"].strip() == text.strip()
        tokens = None
        if stored and own_words:
            taken_at = stored.request.sampling.logprobs_temperature or 1.0
            tokens = stored.generation.logprobs if taken_at == soft.taken_at else None
        found = soft_row(
            vocabulary, row["input_ids"], completion_start(row), tokens, text, soft.top_k
        )
        if tokens:
            counts["found"] += 1
            counts["matched"] += found.matched
            counts["taught"] += sum(label != IGNORED for label in row["labels"])
        return {SOFT: found.entries}

    name = digest([rows._fingerprint, msgspec.to_builtins(soft.model_dump())])
    encoded = rows.map(encode, new_fingerprint=name, load_from_cache_file=False)
    return encoded, Coverage(rows=len(rows), **counts)


def completion_start(row: Mapping[str, Any]) -> int:
    """The first token of the completion in a row as TRL has tokenised it."""
    # TRL drops the mask where it has gone into the labels.
    if (mask := row.get("completion_mask")) is not None:
        return int(np.argmax(np.array(mask)))
    taught = np.array(row["labels"]) != IGNORED
    return int(np.argmax(taught)) if taught.any() else len(taught)


def check_coverage(soft: SoftTargets, coverage: Coverage) -> None:
    """Say it; below `min_coverage` of the tokens it is a `UserError`."""
    if rank() == 0:
        print(
            f"soft targets: {coverage.found:,} of {coverage.rows:,} rows have the teacher's "
            f"log-probabilities; they cover {coverage.share:.1%} of these rows' tokens",
            flush=True,
        )
    if not coverage.found:
        raise UserError(
            "train.soft_targets: no row's completion is an answer of the teacher in its own words "
            "with log-probabilities in the ledger, so there is nothing to learn from. Controls of "
            "other words (gold, label_only), labels and rewritten answers are trained without "
            "soft_targets"
        )
    if coverage.share < soft.min_coverage:
        raise UserError(
            f"train.soft_targets: only {coverage.share:.1%} of the tokens have the teacher's "
            f"probabilities, and min_coverage is {soft.min_coverage:.0%}. Teacher and student "
            "most likely have different tokenizers: take a student of the teacher's family, or "
            "leave soft_targets out"
        )
