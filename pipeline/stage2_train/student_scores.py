"""The student's log-probabilities of a few tokens of each position, beside TRL's fused head.

TRL's head gives the log-probability of the label without keeping logits: on a GPU in Triton, in
tiles, recomputed backwards. The other tokens need no vocabulary of their own then: their logits are
k products with the head's rows, and the logarithm of the partition is known from the label's.

    log p(j) = z(j) - z(label) + log p(label)

At another temperature than 1 the partition is another, and is summed up over the vocabulary, in
pieces that are computed again on the way back: as much work as the head once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from pipeline.errors import UserError

PIECE = 256  # positions whose logits are there at the same time


def student_scores(
    model: Any,
    hidden: Any,
    ids: Any,
    labels: Any,
    log_probs: Any,
    temperature: float = 1.0,
) -> Any:
    """Log-probabilities (n, k) of the tokens `ids` (n, k; below 0: any number is given).

    `hidden` (n, width) comes before the head; `labels` (n,) and their `log_probs` (n,) are TRL's.
    """
    head = model.get_output_embeddings()
    weight, bias = head.weight, head.bias
    if hasattr(weight, "ds_id"):
        raise UserError(
            "train.soft_targets: DeepSpeed ZeRO 3 keeps the head in pieces; use ZeRO 2 or FSDP"
        )
    if hasattr(weight, "full_tensor"):  # FSDP 2
        weight, bias = weight.full_tensor(), None if bias is None else bias.full_tensor()
    index = torch.cat([labels.unsqueeze(-1), ids.clamp(min=0)], -1)
    # As an embedding: its gradient is summed in a fixed order on a GPU, too.
    rows = torch.nn.functional.embedding(index, weight)
    # In the precision of TRL's head, for its rounding has to cancel.
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    logits = torch.bmm(rows.to(dtype), hidden.to(dtype).unsqueeze(-1)).squeeze(-1)
    if bias is not None:
        logits = logits + torch.nn.functional.embedding(index, bias.unsqueeze(-1)).squeeze(-1)
    beyond = _beyond_the_head(model.config.get_text_config())
    logits = beyond(logits.float())
    if temperature != 1:

        def partition(some: Any) -> Any:
            products = torch.nn.functional.linear(some.to(dtype), weight.to(dtype), bias)
            return (beyond(products.float()) / temperature).logsumexp(-1)

        pieces = [checkpoint(partition, p, use_reentrant=False) for p in hidden.split(PIECE)]
        return logits[:, 1:] / temperature - torch.cat(pieces).unsqueeze(-1)
    return logits[:, 1:] - logits[:, :1] + log_probs.unsqueeze(-1)


def _beyond_the_head(config: Any) -> Callable[[Any], Any]:
    """What a model does with the products to make them its logits."""

    def setting(name: str) -> float | None:
        return getattr(config, name, None)

    scale = next(
        (
            found
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if (found := setting(name)) is not None
        ),
        1.0,
    )
    if (divisor := setting("logits_scaling")) is not None:
        scale = divisor if config.model_type == "hyperclovax" else 1 / divisor
    cap = setting("final_logit_softcapping")

    def logits(products: Any) -> Any:
        scaled = products if scale == 1 else products * scale
        return scaled if cap is None else cap * torch.tanh(scaled / cap)

    return logits
