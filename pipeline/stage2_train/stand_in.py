"""A model of a few weights, where TRL wants one and what it is asked does not depend on it."""

from __future__ import annotations

from typing import Any


def stand_in(tokenizer: Any) -> Any:
    """A Llama with the tokenizer's vocabulary and no special tokens of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
