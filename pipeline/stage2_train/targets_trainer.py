"""TRL's SFTTrainer where each token has more than a label: a weight, a teacher's probabilities.

TRL itself computes the loss of each token, sums it up, divides it by the number of taught tokens
(of all batches of a step, on all processes) and logs. Only three things are changed: the dataset
has more columns, the collator pads them, and the model's answer to the trainer has the changed
loss of each token in place of its log-probability.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from trl import SFTTrainer
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipeline.config_train import SoftTargets
from pipeline.errors import UserError
from pipeline.stage2_train.soft_loss import Support, soft_loss
from pipeline.stage2_train.soft_rows import NOWHERE, unpacked
from pipeline.stage2_train.student_scores import student_scores
from pipeline.stage2_train.targets import COLUMNS, IGNORED, SOFT, WEIGHTS, check_loss_settings


class TargetsTrainer(SFTTrainer):  # type: ignore[misc]
    """`add_columns` gives the tokenised train rows, still whole, columns with one entry a token.

    `token_weights`: a factor of the token's loss. `soft`: bytes as of soft_rows.py, with the
    log-probabilities at `soft.taken_at`. Validation rows have neither: their loss stays the plain
    one.
    """

    def __init__(
        self,
        *,
        add_columns: Callable[[Any], Any],
        soft: SoftTargets | None = None,
        args: Any,
        **options: Any,
    ) -> None:
        check_loss_settings(vars(args))
        self._add_columns = add_columns
        super().__init__(args=args, **options)
        self._refuse_cut_rows()
        student = self.model.get_base_model() if is_peft_model(self.model) else self.model
        teach(student, soft)
        self.data_collator: Any = TargetsCollator(self.data_collator, soft.top_k if soft else 0)

    def _prepare_dataset(
        self, dataset: Any, tokenizer: Any, args: Any, packing: bool, formatting: Any, name: str
    ) -> Any:
        if name != "train":
            return super()._prepare_dataset(dataset, tokenizer, args, packing, formatting, name)
        # TRL cuts and packs two columns; here it only tokenises, and the rest is done as it does.
        whole = copy.copy(args)
        whole.max_length, whole.shuffle_dataset = None, False
        rows = super()._prepare_dataset(dataset, tokenizer, whole, False, formatting, name)
        return cut(self._add_columns(rows), args, packing)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if SOFT not in self._signature_columns:
            self._signature_columns += COLUMNS

    def _refuse_cut_rows(self) -> None:
        parallel = self.accelerator.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            raise UserError(
                "row weights and soft targets are not possible with context or sequence "
                "parallelism, which cut a row into parts; use FSDP or several copies instead"
            )


def cut(rows: Any, args: Any, packing: bool) -> Any:
    """Rows cut to `max_length`, or packed, in all their columns, as TRL does it with its two."""
    columns = ["input_ids", "labels", *(name for name in COLUMNS if name in rows.column_names)]
    if args.max_length is not None and not packing:
        ends = args.truncation_mode == "keep_end"
        part = slice(-args.max_length, None) if ends else slice(args.max_length)
        rows = rows.map(lambda row: {name: row[name][part] for name in columns})
        rows = rows.filter(lambda labels: any(x != IGNORED for x in labels), input_columns="labels")
    if args.shuffle_dataset:
        rows = rows.shuffle(seed=args.seed)
    if packing:
        if args.max_length is None:
            raise UserError("train.sft.packing needs train.sft.max_length, the size of a pack")
        rows = pack_dataset(rows.select_columns(columns), args.max_length, args.packing_strategy)
        if args.shuffle_dataset:
            rows = rows.shuffle(seed=args.seed)
    return rows


class TargetsCollator:
    """Lays the columns of the targets out as TRL's collator has laid out the tokens.

    It adds `token_weights` (rows, length), and `soft_ids` and `soft_logprobs` (rows, length, k).
    """

    def __init__(self, inner: DataCollatorForLanguageModeling, k: int) -> None:
        self.inner = inner
        self._k = k

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        own = [{name: e[name] for name in COLUMNS if name in e} for e in examples]
        batch: dict[str, Any] = self.inner(
            [{name: e[name] for name in e if name not in COLUMNS} for e in examples]
        )
        if self.inner.padding_free:  # all in one row, one after the other
            own = [{name: [x for e in own for x in e[name]] for name in own[0]}]
        shape = tuple(batch["input_ids"].shape)
        if WEIGHTS in own[0]:
            weights = np.zeros(shape, dtype=np.float32)
            for number, e in enumerate(own):
                weights[number, : len(e[WEIGHTS])] = e[WEIGHTS]
            batch[WEIGHTS] = torch.from_numpy(weights)
        if SOFT in own[0]:
            ids = np.full((*shape, self._k), NOWHERE, dtype=np.int64)
            logprobs = np.zeros((*shape, self._k), dtype=np.float32)
            for number, e in enumerate(own):
                places, found, values = unpacked(e[SOFT], self._k)
                ids[number, places], logprobs[number, places] = found, values
            batch["soft_ids"] = torch.from_numpy(ids)
            batch["soft_logprobs"] = torch.from_numpy(logprobs)
        return batch


def teach(model: Any, soft: SoftTargets | None) -> None:
    """Let `model(..., fused_lm_head=True)` take the columns of `TargetsCollator`, too.

    Its `log_probs` then are the negative loss of each token. The model has TRL's fused head.
    """
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        _self: Any,
        *given: Any,
        token_weights: Any = None,
        soft_ids: Any = None,
        soft_logprobs: Any = None,
        **options: Any,
    ) -> Any:
        if soft is None or soft.weight == 0 or soft_ids is None:
            output = fused(*given, **options)
        else:
            output = _soft(soft, soft_ids[:, 1:], soft_logprobs[:, 1:], *given, **options)
        if token_weights is not None:
            output.log_probs = output.log_probs * token_weights[:, 1:]
        return output

    def _soft(soft: SoftTargets, ids: Any, logprobs: Any, *given: Any, **options: Any) -> Any:
        hidden = []
        # Looked up on each call, for peft and FSDP replace it.
        handle = model.base_model.register_forward_hook(
            lambda _module, _inputs, output: hidden.append(output.last_hidden_state[:, :-1])
        )
        try:
            output = fused(*given, **options)
        finally:
            handle.remove()
        where = output.label_mask & (ids >= 0).any(-1)
        found = output.log_probs[where]
        labels = options["labels"][:, 1:][where]
        scores = student_scores(
            model, hidden[0][where], ids[where], labels, found, temperature=soft.taken_at
        )
        loss = soft_loss(
            -found,
            scores,
            ids[where],
            logprobs[where],
            weight=soft.weight,
            temperature=soft.temperature,
            taken_at=soft.taken_at,
            support=Support(soft.support),
        )
        output.log_probs = output.log_probs.masked_scatter(where, -loss)
        return output

    model.forward = MethodType(forward, model)
