"""TRL's SFTTrainer with soft targets, which no TRL trainer takes from stored log-probabilities."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipeline.config import SoftTargets
from pipeline.stage2_train.soft_loss import Support, soft_loss
from pipeline.stage2_train.soft_rows import NOWHERE

SOFT = ("soft_ids", "soft_logprobs")

# Models whose logits are more than a product with the head's matrix go the long way round.
_BEYOND_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)


class SoftTrainer(SFTTrainer):  # type: ignore[misc]
    """Rows have `soft_ids` and `soft_logprobs` of shape (tokens, k); validation rows need none.

    The log-probabilities are those at temperature 1, which is what every backend stores.
    """

    def __init__(self, *, model: Any, soft: SoftTargets, **options: Any) -> None:
        self._targets = soft
        _score_only_where_asked(model)
        super().__init__(model=model, **options)
        self.data_collator: Any = _Collator(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if SOFT[0] not in self._signature_columns:
            self._signature_columns += SOFT

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        soft = [inputs.pop(name, None) for name in SOFT]
        if soft[0] is None or not self.model.training:  # validation loss stays the plain one
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        where = labels != -100
        given = {key: value for key, value in inputs.items() if key != "labels"}
        logits = model(**given, use_cache=False, score_at=where)
        each = soft_loss(
            logits,
            labels[where],
            soft[0][:, 1:][where],
            soft[1][:, 1:][where],
            weight=self._targets.weight,
            temperature=self._targets.temperature,
            support=Support(self._targets.support),
        )
        count = where.sum() if num_items_in_batch is None else num_items_in_batch
        loss = each.sum() / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        right = (logits.argmax(-1) == labels[where]).float().mean() if where.any() else 0.0
        self._metrics["train"]["mean_token_accuracy"].append(float(right))
        tokens = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum()
        self._total_train_tokens += int(tokens)
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss


class _Collator:
    """Pads the soft targets beside what TRL's collator pads."""

    def __init__(self, inner: DataCollatorForLanguageModeling) -> None:
        self._inner = inner

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        soft = [{name: e[name] for name in SOFT if name in e} for e in examples]
        batch: dict[str, Any] = self._inner(
            [{k: v for k, v in e.items() if k not in SOFT} for e in examples]
        )
        if not soft[0]:
            return batch
        rows, length = batch["input_ids"].shape
        k = len(soft[0]["soft_ids"][0])
        ids = torch.full((rows, length, k), NOWHERE, dtype=torch.long)
        logprobs = torch.zeros((rows, length, k), dtype=torch.float32)
        for number, found in enumerate(soft):
            size = len(found["soft_ids"])
            ids[number, :size] = torch.as_tensor(found["soft_ids"], dtype=torch.long)
            logprobs[number, :size] = torch.as_tensor(found["soft_logprobs"], dtype=torch.float32)
        return batch | {"soft_ids": ids, "soft_logprobs": logprobs}


def _score_only_where_asked(model: Any) -> None:
    """Let `model(..., score_at=mask)` give the logits of the masked positions: (n, vocabulary).

    The prompt's positions need no logits; at 49 k tokens of vocabulary they are most of the memory.
    """
    original = model.forward
    text = model.config.get_text_config()
    plain = all(getattr(text, name, None) is None for name in _BEYOND_THE_HEAD)

    def forward(_self: Any, *arguments: Any, score_at: Any = None, **options: Any) -> Any:
        if score_at is None:
            return original(*arguments, **options)
        if not plain:
            return original(*arguments, **options).logits[:, :-1][score_at]
        hidden = model.base_model(*arguments, **options).last_hidden_state
        return model.get_output_embeddings()(hidden[:, :-1][score_at])

    model.forward = MethodType(functools.wraps(type(model).forward)(forward), model)
