"""Do documents that are packed into one row see each other? Asked of the model itself.

TRL gives packed rows the positions of each document and no mask. What keeps the documents apart is
the model: its flash attention reads them, and transformers makes a mask of them for sdpa and eager.
A model with code of its own may do neither, and then it trains on what it will never see.
"""

from __future__ import annotations

import sys
from typing import Any

from pipeline.errors import UserError
from pipeline.stage2_train.ranks import rank

_LENGTH = 8  # tokens of each of two documents
_NEGLIGIBLE = 1e-3  # of the largest logit; a real leak is some hundred times more


def check_packing(trainer: Any) -> None:
    """Refuse packing where it mixes documents; a warning where it was asked to."""
    if not trainer.args.packing and not trainer.padding_free:
        return
    if not trainer.padding_free:
        if rank() == 0:
            print(
                f"warning: train.sft.packing_strategy {trainer.args.packing_strategy} cuts rows "
                "anywhere, and each sees the ones before it in the same pack; bfd keeps them apart",
                file=sys.stderr,
            )
        return
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return  # the weights are not in their place before training begins
    if (seen := leak(trainer)) > _NEGLIGIBLE:
        implementation = trainer.model.config._attn_implementation
        raise UserError(
            f"train.sft.packing: with the attention {implementation!r} of this model a document "
            f"sees the one before it in the same pack (its logits move by {seen:.1%}). Set packing "
            "to false, or model_init_kwargs: {attn_implementation: flash_attention_2}"
        )


def leak(trainer: Any) -> float:
    """How far the logits of a document move when the one packed before it is another one.

    Relative to the largest logit; 0 where documents are apart, for all shapes are the same.
    """
    first, second = (_logits_behind(trainer, start) for start in (1, 1 + _LENGTH))
    return float((first - second).abs().max() / first.abs().max().clamp(min=1e-9))


def _logits_behind(trainer: Any, start: int) -> Any:
    """Logits of a second document, behind a first one of the tokens from `start`."""
    import torch

    size = trainer.model.get_input_embeddings().weight.shape[0]
    tokens = [i % size for i in range(start, start + _LENGTH)]
    tokens += [i % size for i in range(1, 1 + _LENGTH)]
    # TRL's own, not one that lays out more than it does.
    collator = getattr(trainer.data_collator, "inner", trainer.data_collator)
    batch = collator([{"input_ids": tokens, "seq_lengths": [_LENGTH, _LENGTH]}])
    batch.pop("labels")
    was_training = trainer.model.training
    trainer.model.eval()  # no dropout
    with torch.no_grad(), trainer.accelerator.autocast():
        batch = trainer._prepare_inputs(batch)
        logits = trainer.model(**batch, use_cache=False).logits[0, _LENGTH : 2 * _LENGTH].float()
    trainer.model.train(was_training)
    return logits
