"""Choose the next token of every row of a batch from its logits."""

from __future__ import annotations

import math
import random
from typing import Any

from pipeline.records import Sampling, TokenLogprob

FIRST_TOP = 256  # candidates sorted first; the whole vocabulary only where these are too few


def pick_tokens(torch: Any, logits: Any, rows: list[tuple[Sampling, random.Random]]) -> list[int]:
    """One token id a row; `logits` is float32 [rows, vocabulary].

    Greedy at temperature 0; else the inverse of the cumulative distribution at one uniform number
    of the row's own stream, after temperature, top_k, top_p (nucleus, 1904.09751) and min_p.
    """
    chosen: list[int] = logits.argmax(-1).tolist()
    warm = [i for i, (s, _) in enumerate(rows) if s.temperature > 0]
    if not warm:
        return chosen
    temperatures = torch.tensor([rows[i][0].temperature for i in warm], device=logits.device)
    probabilities = (logits[warm] / temperatures[:, None]).softmax(-1)
    top = probabilities.topk(min(FIRST_TOP, probabilities.shape[-1]))
    for n, i in enumerate(warm):
        sampling, stream = rows[i]
        u = stream.random()
        if sampling.top_p >= 1 and sampling.top_k is None and sampling.min_p is None:
            total = probabilities[n].cumsum(0)
            at = int(torch.searchsorted(total, u * total[-1]))
            chosen[i] = min(at, len(total) - 1)
            continue
        values, ids = top.values[n], top.indices[n]
        if _needs_more(sampling, values):
            values, ids = probabilities[n].sort(descending=True)
        count = _candidates(torch, sampling, values)
        total = values[:count].cumsum(0)
        at = int(torch.searchsorted(total, u * total[-1]))
        chosen[i] = int(ids[min(at, count - 1)])
    return chosen


def _needs_more(sampling: Sampling, values: Any) -> bool:
    """Do the first candidates (sorted) fail to cover what the settings allow?"""
    if sampling.top_k is not None and 0 < sampling.top_k <= len(values):
        return False
    if sampling.top_p < 1 and float(values.sum()) >= sampling.top_p:
        return False
    return not (sampling.min_p and float(values[-1]) < sampling.min_p * float(values[0]))


def _candidates(torch: Any, sampling: Sampling, values: Any) -> int:
    count = len(values)
    if sampling.top_k is not None and sampling.top_k > 0:
        count = min(count, sampling.top_k)
    if sampling.top_p < 1:
        # The token that crosses top_p is still in, as everywhere else.
        inside = (
            values[:count].cumsum(0) < sampling.top_p * values[:count].sum()
            if sampling.top_k
            else values[:count].cumsum(0) < sampling.top_p
        )
        count = min(count, int(inside.sum()) + 1)
    if sampling.min_p:
        count = max(1, min(count, int((values >= sampling.min_p * values[0]).sum())))
    return count


def token_logprobs(logits: Any, token: int, top_k: int, tokenizer: Any) -> TokenLogprob:
    """Natural-log probabilities of the scores: the token's own, and the `top_k` largest."""
    logprobs = logits.log_softmax(-1)
    top: tuple[tuple[str, float], ...] = ()
    if top_k:
        values, ids = logprobs.topk(top_k)
        names = tokenizer.convert_ids_to_tokens(ids.tolist())
        top = tuple(
            (name, round(value, 5)) for name, value in zip(names, values.tolist(), strict=True)
        )
    own = float(logprobs[token])
    name = tokenizer.convert_ids_to_tokens(token)
    return TokenLogprob(name, round(own, 5) if math.isfinite(own) else -1e9, top)
