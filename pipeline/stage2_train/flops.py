"""Floating point operations of training, and how many of them a machine can do.

Model FLOP utilisation as in PaLM (2204.02311), appendix B: tokens per second times the operations
that a token needs, over the machine's peak. What is computed twice (checkpointing) counts once.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import torch

# Dense bf16 with fp32 accumulation, as the vendors' data sheets state them.
STATED = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
}
SIZE = 2048  # of the square matrices that are multiplied where nothing is stated
TRIES = 4


class Peak(msgspec.Struct, frozen=True):
    flops: float  # a second, of all devices of this training
    source: str


def peak_flops(processes: int = 1) -> Peak:
    """The stated peak of a known accelerator; else the fastest matrix product measured here."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for key, flops in STATED.items():
            if key in name.replace("-", " ").split():
                return Peak(flops * processes, f"{flops / 1e12:,.0f} TFLOP/s (stated, {key})")
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
    """2 operations a weight forward, 2 for the gradient of the activations, 2 for that of the
    weights that are trained; and 12 * layers * width * length for attention.

    `mean_tokens`: length of a row, within which attention looks back.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text = model.config.get_text_config()
    # A table that is only looked up costs nothing; one that is the head as well is multiplied.
    looked_up = 0
    if not getattr(text, "tie_word_embeddings", False):
        looked_up = model.get_input_embeddings().weight.numel()
    every = sum(p.numel() for p in model.parameters()) - looked_up
    attention = 12 * text.num_hidden_layers * text.hidden_size * mean_tokens
    return float(4 * every + 2 * min(trained, every) + attention)
