"""A student's folder -> one GGUF file, through the `gguf` library of the llama.cpp project.

The library knows the names, the layout and the 8-bit blocks; what is done here is what its package
leaves to the converter script of llama.cpp's repository, for the few architectures whose files
transformers can read back, so that every file is opened again and compared. All others are
exported with that script: docs/exporting.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.stage2_train.export_formats import Format

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # the same names in transformers and in GGUF
STEPS = "docs/exporting.md has the steps with llama.cpp's own converter"
BLOCK = 32  # values that share a scale in Q8_0


def write_gguf(student: Path, file: Path, kind: Format, name: str) -> None:
    """Write `file`; `UserError` for a student whose GGUF would not be the same model."""
    import gguf
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(student)
    check_architecture(config)
    tokenizer = json.loads((student / "tokenizer.json").read_text(encoding="utf-8"))
    splitter = splitter_name(tokenizer)
    writer = gguf.GGUFWriter(file, config.model_type, use_temp_file=True)
    writer.add_name(name)
    _add_shape(writer, config)
    eight = kind is Format.GGUF_Q8
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if eight else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, tokenizer, splitter, config.vocab_size)
    gguf.SpecialVocab(student, load_merges=True, n_vocab=config.vocab_size).add_to_gguf(
        writer, quiet=True
    )
    try:
        for tensor_name, values in _tensors(student, config):
            stored, kind_of = _stored(values, eight)
            writer.add_tensor(tensor_name, stored, raw_dtype=kind_of)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check_architecture(config: Any) -> None:
    """`UserError` for all that this file cannot say in GGUF."""
    rope = getattr(config, "rope_parameters", None) or {}
    problems = [
        problem
        for problem, found in {
            f"its architecture is {config.model_type}": config.model_type not in ARCHITECTURES,
            f"its rope is {rope.get('rope_type')}": rope.get("rope_type", "default") != "default",
            "its attention has biases": config.model_type != "qwen2"
            and getattr(config, "attention_bias", False),
            "its feed-forward layers have biases": getattr(config, "mlp_bias", False),
            "it uses sliding windows": getattr(config, "use_sliding_window", False),
            f"its activation is {config.hidden_act}": config.hidden_act != "silu",
        }.items()
        if found
    ]
    if problems:
        raise UserError(
            f"this student cannot be written to GGUF here: {', '.join(problems)} (written here: "
            f"{', '.join(ARCHITECTURES)} with plain rope). {STEPS}"
        )


def _add_shape(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def splitter_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how tokenizer.json cuts a text before its merges; a wrong one would
    silently give other tokens, so an unknown way is a `UserError`."""
    from transformers.integrations.gguf import gguf_tokenizer_mapping as known

    model, cut = tokenizer["model"], tokenizer.get("pre_tokenizer") or {}
    normalizer = tokenizer.get("normalizer")
    if (
        model["type"] == "BPE"
        and model.get("merges")
        and (normalizer or {"type": "NFC"})["type"] == "NFC"
    ):
        parts = cut.get("pretokenizers", [cut])
        kinds = [part.get("type") for part in parts]
        last = parts[-1]
        if kinds[-1] == "ByteLevel" and not last["add_prefix_space"]:
            if kinds == ["ByteLevel"] and last["use_regex"]:
                return "gpt-2"
            if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
                return "smollm"
            if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
                regex = parts[0]["pattern"].get("Regex")
                for name in ("qwen2", "llama-bpe", "tekken", "gpt-4o"):
                    if known.GGUF_PRE_TOKENIZER_SPLITS[name] == regex:
                        return name
    raise UserError(
        "this student's tokenizer cannot be written to GGUF here: it is no byte-level BPE, or cuts "
        f"texts in a way that is not known here. {STEPS}"
    )


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], splitter: str, size: int) -> None:
    from gguf import TokenType

    tokens = [f"[PAD{n}]" for n in range(size)]  # ids that the vocabulary leaves free
    kinds = [TokenType.UNUSED] * size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = token, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)


def _tensors(student: Path, config: Any) -> Iterator[tuple[str, Any]]:
    """(name in GGUF, float32 array) of every weight."""
    import gguf
    from safetensors import safe_open

    arch = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[config.model_type]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for path in sorted(student.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue  # in GGUF, no output tensor says: the embedding again
                target = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if target is None:
                    raise UserError(f"GGUF has no place for the weight {name}. {STEPS}")
                values = weights.get_tensor(name).float().numpy()
                if config.model_type == "llama" and ".attn_q." in target:
                    values = _interleaved(values, config.num_attention_heads)
                elif config.model_type == "llama" and ".attn_k." in target:
                    values = _interleaved(values, config.num_key_value_heads)
                yield target, values


def _interleaved(rows: Any, heads: int) -> Any:
    """GGUF's Llama turns neighbouring rows of a head together, transformers' its two halves."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _stored(values: Any, eight: bool) -> tuple[Any, Any]:
    """(bytes as stored, their kind): vectors stay float32; what fills no blocks stays float16."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import quants

    kind = Kind.F16
    if values.ndim < 2:
        kind = Kind.F32
    elif eight and values.shape[-1] % BLOCK == 0:
        kind = Kind.Q8_0
    return quants.quantize(values, kind), kind
