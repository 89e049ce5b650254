"""A smaller model from a trained one, for experiments with a student's size.

Fewer layers alone: the kept layers keep their weights. They lie evenly spaced, the first and the
last among them (as in shrink and fine-tune, 2010.13002). Any other field of the model's config
changes the shape of its weights: all weights are new and random.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError

PLACE = "student.shrink"

# What a model reads and writes is no matter of its size.
_FIXED = ("vocab_size", "model_type", "architectures", "auto_map", "quantization_config", "dtype")


def shrunk(source: str, shape: Mapping[str, Any], seed: int | None) -> tuple[Any, str]:
    """(model, what was done) of the checkpoint folder `source` with fields of its config changed.

    Raises `UserError` for a field or a value that the model does not take.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    if config.get_text_config() is not config:
        raise UserError(f"{PLACE}: this model is more than a language model; take one of text only")
    own = {}
    for key, value in shape.items():
        name = _own_name(config, key)
        like = getattr(config, name)
        if type(like) is int and (type(value) is not int or value < 1):
            raise UserError(f"{PLACE}.{key}: a whole number, as {like} before; seen: {value!r}")
        own[name] = value
    layers = _own_name(config, "num_hidden_layers")
    had = getattr(config, layers)
    wanted = own.get(layers, had)
    if wanted > had:
        raise UserError(f"{PLACE}.num_hidden_layers: 1 to {had} can be kept; seen: {wanted}")
    kept = kept_layers(had, wanted)
    try:
        smaller = _smaller_config(config, own, kept)
        if set(own) == {layers}:
            return _fewer_layers(source, smaller, kept)
        return _new_weights(smaller, own, seed)
    except UserError:
        raise
    except Exception as error:  # each architecture refuses in its own way
        raise UserError(f"{PLACE}: {type(config).__name__} cannot be built so: {error}") from None


def kept_layers(had: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `had` layers, evenly spaced, the first and the last among them."""
    if wanted == 1:
        return [0]
    gaps = wanted - 1
    return [(2 * i * (had - 1) + gaps) // (2 * gaps) for i in range(wanted)]  # halves go up


def _own_name(config: Any, key: str) -> str:
    """What this architecture calls a field: GPT-2 has n_layer for num_hidden_layers."""
    name = str(config.attribute_map.get(key, key))
    fields = [f for f in config.to_dict() if not f.endswith("_token_id") and f not in _FIXED]
    if name in fields:
        return name
    if key in _FIXED or key.endswith("_token_id"):
        raise UserError(f"{PLACE}: {key} is not a matter of size; student.add_tokens adds tokens")
    close = difflib.get_close_matches(key, [*fields, *config.attribute_map], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UserError(f"{PLACE}: {type(config).__name__} has no field {key!r}{hint}")


def _smaller_config(config: Any, own: Mapping[str, Any], kept: list[int]) -> Any:
    fields = config.to_dict()
    had = getattr(config, _own_name(config, "num_hidden_layers"))
    for key, value in fields.items():
        if isinstance(value, list) and len(value) == had and key not in own:
            fields[key] = [value[i] for i in kept]  # the kind of each layer
    fields |= own
    # Most configs store the width of a head although it follows from the others.
    heads, width = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    if heads and fields.get("head_dim") == width // heads and "head_dim" not in own:
        heads, width = own.get("num_attention_heads", heads), own.get("hidden_size", width)
        if width % heads:
            raise UserError(
                f"{PLACE}: hidden_size {width} is not a multiple of num_attention_heads {heads}"
            )
        fields["head_dim"] = width // heads
    return type(config).from_dict(fields)


def _fewer_layers(source: str, smaller: Any, kept: list[int]) -> tuple[Any, str]:
    from torch import nn
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", use_safetensors=True)
    before, had = model.num_parameters(), model.config.num_hidden_layers
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == had
    ]
    # A layer's own lists (experts) may be as long by chance; they lie inside.
    outer = [(n, m) for n, m in stacks if not any(n.startswith(f"{o}.") for o, _ in stacks)]
    if len(outer) != 1:
        raise UserError(
            f"{PLACE}.num_hidden_layers: {type(model).__name__} has not one list of {had} layers"
        )
    name, stack = outer[0]
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.ModuleList([stack[i] for i in kept]))
    model.config = smaller
    numbers = ", ".join(str(i) for i in kept)
    return model, (
        f"{len(kept)} of {had} layers are left, with their weights: {numbers}; "
        f"{before / 1e6:.1f} M -> {model.num_parameters() / 1e6:.1f} M parameters"
    )


def _new_weights(smaller: Any, own: Mapping[str, Any], seed: int | None) -> tuple[Any, str]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        model = AutoModelForCausalLM.from_config(smaller)
    shape = ", ".join(f"{key} {value}" for key, value in own.items())
    return model, (
        f"ALL WEIGHTS ARE NEW AND RANDOM (seed {seed or 0}): nothing that the model knew is left, "
        f"for another shape ({shape}) has no place for it; {model.num_parameters() / 1e6:.1f} M "
        "parameters"
    )
