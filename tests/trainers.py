"""Real trainers on a few rows, for tests of what one batch comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pipeline.config_train import SoftTargets
from pipeline.stage2_train.soft_rows import entry_type
from pipeline.stage2_train.targets import SOFT, with_weights
from pipeline.stage2_train.targets_trainer import TargetsTrainer

ROWS = (
    ("How many figs?", "There are 12 figs in it."),
    ("And the pears, all of them together?", "5 pears."),
    ("What is left?", "Nothing at all, for all were eaten by noon."),
)


def dataset(weights: Sequence[float] = (), rows: Sequence[tuple[str, str]] = ROWS) -> Dataset:
    found = {
        "prompt": [[{"role": "user", "content": question}] for question, _ in rows],
        "completion": [[{"role": "assistant", "content": answer}] for _, answer in rows],
    }
    return Dataset.from_dict(found | ({"weight": list(weights)} if weights else {}))


def make_trainer(
    folder: Path,
    model: Path,
    rows: Dataset,
    add_columns: Callable[[Any], Any] | None = None,
    soft: SoftTargets | None = None,
    **settings: Any,
) -> Any:
    """TRL's own trainer, or ours where columns are added; all rows in one batch, in order."""
    arguments = SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=8,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        **settings,
    )
    options = {
        "model": AutoModelForCausalLM.from_pretrained(model),
        "processing_class": AutoTokenizer.from_pretrained(model),
        "train_dataset": rows,
        "args": arguments,
    }
    if add_columns is None:
        return SFTTrainer(**options)
    return TargetsTrainer(**options, add_columns=add_columns, soft=soft)


def weighted(rows: Dataset) -> Dataset:
    return rows.map(with_weights)


def taught_by(model: Any, k: int, temperature: float = 1.0) -> Callable[[Dataset], Dataset]:
    """Adds the log-probabilities that a model gives the k likeliest tokens of each position."""

    def entries(row: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        values, ids = (logits / temperature).log_softmax(-1).topk(k)
        found = np.zeros(len(ids), dtype=entry_type(k))
        found["ids"], found["logprobs"] = ids.numpy(), values.numpy()
        wanted = zip(row["labels"][1:], found, strict=True)
        return {SOFT: [b"", *(e.tobytes() if label != -100 else b"" for label, e in wanted)]}

    return lambda rows: rows.map(entries)


def loss_and_gradient(trainer: Any, items: int | None = None) -> tuple[float, torch.Tensor]:
    """Of one batch of all rows, divided by `items` tokens (None: its own)."""
    model = trainer.model.train()
    model.zero_grad()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    if items is None:
        items = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    loss = trainer.compute_loss(model, batch, num_items_in_batch=items)
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)
