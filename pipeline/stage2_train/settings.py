"""`train.sft` and `train.lora` as TRL's and peft's own config objects.

Both are handed on untouched; below them lie a few defaults that fit the machine and the run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError


def defaults(config: Config) -> dict[str, Any]:
    """What every trainer of a run starts from; the user's settings go over it."""
    import torch

    found: dict[str, Any] = {
        "seed": config.seed,
        "logging_steps": 5,
        "save_strategy": "steps",
        "save_steps": 0.25,  # of all steps
        "save_total_limit": 2,
        # Early stopping counts on where it was.
        "restore_callback_states_from_checkpoint": True,
        "report_to": "tensorboard",
        "disable_tqdm": True,  # watch.py prints what a log file can hold
        # A loss that is no number must be seen, not replaced by the mean of those before.
        "logging_nan_inf_filter": False,
    }
    if not torch.cuda.is_available():
        # TRL's defaults (bf16, checkpointing) were measured 3.5 times slower on a CPU.
        found |= {"bf16": False, "gradient_checkpointing": False, "use_cpu": True}
    return found


def sft_arguments(
    config: Config,
    output: Path,
    more: Mapping[str, Any] | None = None,
    *,
    validates: bool | None = None,
) -> Any:
    """The SFTConfig; a field that TRL does not have is a `UserError`.

    `more`: settings of one stage, over `train.sft`. `validates`: there are validation rows; None:
    if the config holds some back.
    """
    from trl import SFTConfig

    wanted = config.train.sft | dict(more or {})
    own = defaults(config) | {
        "completion_only_loss": True,
        "train_sampling_strategy": "group_by_length",
    }
    if config.curate.mixture is not None and config.curate.mixture.order != "as_is":
        own["train_sampling_strategy"] = "sequential"
        _keeps_the_order(config, wanted)
    if validates or (validates is None and config.curate.validation_share):
        own["eval_strategy"] = "epoch"
    if config.train.early_stopping:
        own["load_best_model_at_end"] = True
    own = best_model(own, wanted)
    wanted.pop("model_init_kwargs", None)  # student.py opens the model with them
    return arguments("train.sft", SFTConfig, own | wanted, output)


def best_model(own: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings so that the best checkpoint can be kept, if `wanted` asks for it."""
    own = dict(own)
    if (own | dict(wanted)).get("load_best_model_at_end") and "save_strategy" not in wanted:
        # transformers wants both at the same moments.
        own["save_strategy"] = wanted.get("eval_strategy", "epoch")
        if "eval_steps" in wanted:
            own["save_steps"] = wanted["eval_steps"]
    return own


def arguments(place: str, kind: type, settings: dict[str, Any], output: Path) -> Any:
    """A TRL config object of this kind; what it refuses is a `UserError` about `place`."""
    if settings.get("save_total_limit") == 1:
        # The last good checkpoint is needed until the next is seen to be good, and the one of a
        # stop beside the best.
        settings = settings | {"save_total_limit": 2}
    if "output_dir" in settings:
        raise UserError(f"{place}.output_dir: the student goes to 4_student; leave it out")
    try:
        found = kind(**settings, output_dir=str(output))
    except (TypeError, ValueError) as error:
        raise UserError(explained(place, error, kind)) from None
    return on_one_gpu(found)


def on_one_gpu(found: Any) -> Any:
    """A single process's batch on one GPU.

    transformers would multiply it by the GPUs it sees (`DataParallel`): another training on another
    machine.
    """
    if found.n_gpu > 1:
        found._n_gpu = 1
    return found


def lora_config(config: Config) -> Any:
    """peft's LoraConfig, or None."""
    if config.train.lora is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**({"task_type": "CAUSAL_LM"} | config.train.lora))
    except (TypeError, ValueError) as error:
        raise UserError(explained("train.lora", error, LoraConfig)) from None


def _keeps_the_order(config: Config, settings: Mapping[str, Any]) -> None:
    """Refuse settings of `train.sft` that would shuffle what `curate.mixture.order` has ordered."""
    assert config.curate.mixture is not None
    wanted = {"train_sampling_strategy": "sequential", "shuffle_dataset": False, "packing": False}
    for key, value in wanted.items():
        seen = settings.get(key, value)
        if seen != value:
            raise UserError(
                f"train.sft.{key} {seen!r} would undo curate.mixture.order "
                f"{config.curate.mixture.order}; leave {key} out, or set the order to as_is"
            )


def explained(place: str, error: Exception, kind: type) -> str:
    """The library's refusal as a message about the config."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not found:
        return f"{place}: {error}"
    fields = list(getattr(kind, "__dataclass_fields__", {}))
    close = difflib.get_close_matches(found[1], fields, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{place}: {kind.__name__} has no field {found[1]!r}{hint}"
