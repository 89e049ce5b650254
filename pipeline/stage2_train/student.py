"""The student's weights and tokenizer, opened for training."""

from __future__ import annotations

import inspect
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models import student_checkpoint
from pipeline.models.locate import Checkpoint
from pipeline.stage2_train.settings import lora_config

INIT = "train.sft.model_init_kwargs"
# Of these settings: where weights go and how they are stored, which a model's shape does not ask.
_WHERE = ("device_map", "max_memory", "offload_folder", "quantization_config")


def check_student(config: Config) -> None:
    """Find what cannot be trained before the teacher is paid: `UserError`.

    The model is opened as training will open it, but without its weights.
    """
    checkpoint = student_checkpoint(config)
    _check_liger(config)
    _check_assistant_only(config, checkpoint)
    _check_quantised(config)
    model = _empty_model(config, checkpoint)
    _check_lora(config, model)


def open_student(
    config: Config, folder: str | None = None, *, quantised: bool = True
) -> tuple[Any, Any]:
    """(model, tokenizer) of the student, or of a later state of it in `folder`.

    float32, unless `train.sft.model_init_kwargs` says otherwise; these go to `from_pretrained`.
    `quantised=False`: as it is stored, whatever `quantization_config` they have.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = Checkpoint(folder, None) if folder else student_checkpoint(config)
    options = _options(config, checkpoint.revision)
    init = {"dtype": torch.float32} | model_init(config)
    if not quantised:
        init.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.source, use_safetensors=True, **init, **options
    )
    return model, AutoTokenizer.from_pretrained(checkpoint.source, **options)


def model_init(config: Config) -> dict[str, Any]:
    """TRL's `model_init_kwargs`, which it does not take together with a model that is open."""
    return dict(config.train.sft.get("model_init_kwargs") or {})


def student_lora(config: Config, model: Any) -> Any:
    """peft's LoraConfig, or None. An adapter leaves embeddings alone; with new tokens they train.

    Else a turn could end with a token that the student never learns to write. `train.lora` with
    `modules_to_save` or `trainable_token_indices` of its own is left as it is.
    """
    lora = lora_config(config)
    if lora is None or not config.student.add_tokens:
        return lora
    if lora.modules_to_save is None and lora.trainable_token_indices is None:
        # Whole: TRL's loss cannot read a head of which peft trains single rows.
        parts = (model.get_input_embeddings(), model.get_output_embeddings())
        lora.modules_to_save = [_last_name(model, part) for part in parts]
        lora.ensure_weight_tying = bool(model.config.get_text_config().tie_word_embeddings)
    return lora


def _last_name(model: Any, part: Any) -> str:
    name = next(n for n, module in model.named_modules() if module is part)
    return str(name).rpartition(".")[2]


def _empty_model(config: Config, checkpoint: Checkpoint) -> Any:
    """The model on torch's `meta` device: its shape alone, as `model_init_kwargs` make it.

    Built from config.json, so that a hub's weights are not fetched.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    init = {key: value for key, value in model_init(config).items() if key not in _WHERE}
    if init.get("dtype") == "auto":
        del init["dtype"]
    options = _options(config, checkpoint.revision)
    try:
        shape, rest = AutoConfig.from_pretrained(
            checkpoint.source, return_unused_kwargs=True, **init, **options
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                shape, trust_remote_code=options["trust_remote_code"], **rest
            )
    except (ImportError, OSError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        if "attn_implementation" in init and isinstance(error, (ImportError, ValueError)):
            raise UserError(
                f"{INIT}.attn_implementation {init['attn_implementation']!r} cannot be used here: "
                f"{text}. Leave it out for torch's own (sdpa)"
                + (
                    "; or type `pip install flash-attn` (an NVIDIA GPU and its compiler are needed)"
                    if "flash" in str(init["attn_implementation"])
                    else ""
                )
            ) from None
        place = INIT if init else "student.model"
        raise UserError(f"{place}: {config.student.model!r} cannot be opened: {text}") from None


def _check_liger(config: Config) -> None:
    from transformers.utils import is_liger_kernel_available

    if _anywhere(config, "use_liger_kernel") and not is_liger_kernel_available():
        raise UserError(
            "train.sft.use_liger_kernel: the package liger-kernel is not installed; type `pip "
            "install liger-kernel` (it needs a GPU that Triton compiles for), or leave it out"
        )


def _check_assistant_only(config: Config, checkpoint: Checkpoint) -> None:
    if not _anywhere(config, "assistant_only_loss"):
        return
    from transformers import AutoTokenizer
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    options = _options(config, checkpoint.revision)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **options)
    try:
        if not has_generation_markers(tokenizer.chat_template):
            get_training_chat_template(tokenizer)
    except ValueError:
        raise UserError(
            "train.sft.assistant_only_loss: the student's chat template does not mark the "
            "assistant's words, and TRL has no marked version of it; put {% generation %} and "
            "{% endgeneration %} around them, end token included, in a file for "
            "student.chat_template, or leave it out: the loss is on the completion alone anyway"
        ) from None


def _anywhere(config: Config, key: str) -> bool:
    return any(s.get(key) for s in (config.train.sft, *(s.sft for s in config.train.stages)))


def _check_quantised(config: Config) -> None:
    wanted = model_init(config).get("quantization_config")
    if wanted is None:
        return
    from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

    place = f"{INIT}.quantization_config"
    if not isinstance(wanted, dict):
        raise UserError(f"{place}: a table, as {{load_in_4bit: true}}; seen: {wanted!r}")
    if config.train.lora is None:
        raise UserError(
            f"{place}: quantised weights are not trained, only an adapter beside them; add "
            "`train.lora: {r: 16, target_modules: all-linear}` (QLoRA), or leave it out"
        )
    try:
        known = AutoQuantizationConfig.from_dict(dict(wanted))
        unknown = wanted.keys() - {"quant_method", *inspect.signature(type(known)).parameters}
        if unknown:
            raise ValueError(f"{type(known).__name__} has no field {sorted(unknown)[0]!r}")
        AutoHfQuantizer.from_config(known).validate_environment(device_map=None)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split())}") from None


def _check_lora(config: Config, model: Any) -> None:
    """Whether the adapter's modules are in this model."""
    lora = student_lora(config, model)
    if lora is None:
        return
    from peft import get_peft_model

    lora.init_lora_weights = True  # other ways to begin look at the weights
    try:
        get_peft_model(model, lora, low_cpu_mem_usage=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"train.lora: {' '.join(str(error).split())}") from None


def _options(config: Config, revision: str | None) -> dict[str, Any]:
    return {
        "revision": revision,
        "trust_remote_code": config.student.serving.trust_remote_code,
    }
