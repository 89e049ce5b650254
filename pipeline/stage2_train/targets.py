"""What a token of a training row can have beside its label, and the trainer that takes it.

A row's weight multiplies the loss of its tokens. The loss of a step stays the sum over its tokens,
divided by their number without weights: so weights of mean 1 leave the learning rate its meaning,
and a row of weight 2 counts as if it were there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError

WEIGHTS = "token_weights"  # a factor of each token's loss
SOFT = "soft"  # the teacher's probabilities, as of soft_rows.py
COLUMNS = (WEIGHTS, SOFT)
IGNORED = -100  # the label of a token without a loss


def trained_rows(rows: Any) -> Any:
    """Without those of weight 0; `UserError` where none is left or a weight is no weight."""
    weights = rows["weight"]
    if wrong := [w for w in weights if not 0 <= w < float("inf")]:
        raise UserError(f"{len(wrong):,} rows have no weight from 0 on, as {wrong[0]}; curate anew")
    keep = [i for i, weight in enumerate(weights) if weight]
    if not keep:
        raise UserError("the weights of all rows are 0: none is left to train on")
    return rows if len(keep) == len(rows) else rows.select(keep)


def trainer_kind(config: Config, rows: Any, tokenizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    """(rows, trainer class, its further arguments): TRL's own where all tokens count the same."""
    from trl import SFTTrainer

    rows = trained_rows(rows)
    soft, weighted = config.train.soft_targets, any(w != 1 for w in rows["weight"])
    if soft is None and not weighted:
        return rows.select_columns(["prompt", "completion"]), SFTTrainer, {}
    from pipeline.stage2_train.targets_trainer import TargetsTrainer

    add = columns_of(config, tokenizer, weighted)
    wanted = ["prompt", "completion", "weight", "source", "model"]
    rows = rows.select_columns([name for name in wanted if name in rows.column_names])
    return rows, TargetsTrainer, {"add_columns": add, "soft": soft}


def columns_of(config: Config, tokenizer: Any, weighted: bool) -> Callable[[Any], Any]:
    """What adds the columns to tokenised rows."""

    def add(rows: Any) -> Any:
        if weighted:
            rows = rows.map(with_weights)
        if (soft := config.train.soft_targets) is not None:
            from pipeline.stage2_train.soft_targets import check_coverage, with_soft_targets

            rows, coverage = with_soft_targets(config, rows, tokenizer)
            check_coverage(soft, coverage)
        return rows

    return add


def with_weights(row: Mapping[str, Any]) -> dict[str, list[float]]:
    return {WEIGHTS: [float(row["weight"])] * len(row["input_ids"])}


def check_loss_settings(sft: Mapping[str, Any]) -> None:
    """Refuse losses of TRL that are not a sum over the log-probabilities of the tokens."""
    for name, wanted in (("loss_type", "nll"), ("label_smoothing_factor", 0)):
        if (seen := sft.get(name, wanted)) != wanted:
            raise UserError(
                f"train.sft.{name} {seen!r} is not possible with soft targets or rows of unequal "
                f"weight; leave it out ({wanted!r})"
            )
