"""The student's weights and tokenizer, opened for training."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models import local_checkpoint


def check_student(config: Config) -> None:
    """Find what cannot be trained before the teacher is paid: `UserError`."""
    from transformers import AutoConfig, AutoTokenizer

    checkpoint = local_checkpoint(
        config.student.model, config.student.revision, config.student.serving
    )
    options = _options(config, checkpoint.revision)
    try:
        # A hub's model is only known to exist, and to need no code of its own, once it is asked.
        AutoConfig.from_pretrained(checkpoint.source, **options)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"student.model {config.student.model!r} cannot be opened: {error}"
        ) from None
    if tokenizer.chat_template is None:
        raise UserError(
            f"student.model {config.student.model!r} has no chat template; take an "
            "instruction-tuned model"
        )


def open_student(
    config: Config, folder: str | None = None, *, quantised: bool = True
) -> tuple[Any, Any]:
    """(model, tokenizer) of the student, or of a later state of it in `folder`.

    float32, unless `train.sft.model_init_kwargs` says otherwise; these go to `from_pretrained`.
    `quantised=False`: as it is stored, whatever `quantization_config` they have.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = local_checkpoint(
        config.student.model, config.student.revision, config.student.serving
    )
    source = folder or checkpoint.source
    options = _options(config, None if folder else checkpoint.revision)
    init = {"dtype": torch.float32} | model_init(config)
    if not quantised:
        init.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **init, **options)
    return model, AutoTokenizer.from_pretrained(source, **options)


def model_init(config: Config) -> dict[str, Any]:
    """TRL's `model_init_kwargs`, which it does not take together with a model that is open."""
    return dict(config.train.sft.get("model_init_kwargs") or {})


def _options(config: Config, revision: str | None) -> dict[str, Any]:
    return {
        "revision": revision,
        "trust_remote_code": config.student.serving.trust_remote_code,
    }
