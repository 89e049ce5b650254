"""Floating point operations of training, and how many of them a machine can do.

Model FLOP utilisation as in PaLM (2204.02311), appendix B: tokens per second times the operations
that a token needs, over the machine's peak. What is computed twice (checkpointing) counts once. The
operations and the stated peaks are TRL's.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import torch
from trl.trainer.utils import compute_flops_per_token, get_peak_flops

SIZE = 2048  # of the square matrices that are multiplied where nothing is stated
TRIES = 4


class Peak(msgspec.Struct, frozen=True):
    flops: float  # a second, of all devices of this training
    source: str


def peak_flops(processes: int = 1) -> Peak:
    """The stated peak of a known accelerator; else the fastest matrix product measured here."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if (stated := get_peak_flops(name, "bfloat16")) is not None:
            return Peak(stated * processes, f"{stated / 1e12:,.0f} TFLOP/s (stated, {name})")
        found = _measured(torch.device("cuda"), torch.bfloat16)
    else:
        found = _measured(torch.device("cpu"), torch.float32)
    return Peak(found * processes, f"{found / 1e9:,.0f} GFLOP/s (a matrix product, measured here)")


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.ones(SIZE, SIZE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(TRIES):  # the first warms up
        begin = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - begin)
    return 2 * SIZE**3 / best


def training_flops_per_token(model: Any, mean_tokens: float) -> float:
    """Forward once, and back twice: for the activations, and for the weights that are trained.

    `mean_tokens`: length of a row, within which attention looks back.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    text = model.config.get_text_config()
    try:
        whole = compute_flops_per_token(text, int(mean_tokens))
    except AttributeError:  # an architecture with other names: 2 operations a weight and direction
        whole = 6 * every + 12 * text.num_hidden_layers * text.hidden_size * mean_tokens
    return float(whole * (2 + trained / every) / 3)
