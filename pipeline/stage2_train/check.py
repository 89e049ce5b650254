"""`distill train CONFIG --check`: what is wrong with the training, before a teacher is paid.

A login node or the head of a cluster will not train itself. What only the machine with the GPU can
tell is left out there, and named.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config, load_config
from pipeline.errors import DONE
from pipeline.stage2_train import sft

INIT = "model_init_kwargs"
OF_A_GPU = ("attn_implementation", "quantization_config")  # of INIT


def check_training(path: Path, overrides: Sequence[str]) -> int:
    """Raises `UserError` where training would."""
    config = load_config(path, overrides)
    if config.execution.on in ("slurm", "ray"):
        if absent := [name for name in ("torch", "trl") if importlib.util.find_spec(name) is None]:
            print(f"the training is not checked: {' and '.join(absent)} not installed here")
            return DONE
        import torch

        if not torch.cuda.is_available():
            config, left_out = _without(config)
            if left_out:
                print(f"not checked, for there is no GPU here: {', '.join(left_out)}")
    sft.check(config)
    return DONE


def _without(config: Config) -> tuple[Config, list[str]]:
    """The config without the settings that a machine without a GPU refuses."""
    left_out: list[str] = []

    def kept(place: str, table: dict[str, Any]) -> dict[str, Any]:
        found = dict(table)
        bits = "bit" in str(table.get("optim"))  # adamw_bnb_8bit, paged_adamw_8bit, ...
        for key in ("tf32", "optim") if bits else ("tf32",):
            if found.pop(key, None) is not None:
                left_out.append(f"{place}.{key}")
        if isinstance(init := found.get(INIT), dict):
            left_out.extend(f"{place}.{INIT}.{key}" for key in OF_A_GPU if key in init)
            found[INIT] = {key: value for key, value in init.items() if key not in OF_A_GPU}
        return found

    train = config.train
    changed: dict[str, Any] = {
        "sft": kept("train.sft", train.sft),
        "stages": [
            stage.model_copy(update={"sft": kept(f"train.stages.{number}.sft", stage.sft)})
            for number, stage in enumerate(train.stages)
        ],
    }
    if (wanted := train.preference) is not None:
        dpo = kept("train.preference.dpo", wanted.dpo)
        changed["preference"] = wanted.model_copy(update={"dpo": dpo})
    return config.model_copy(update={"train": train.model_copy(update=changed)}), left_out
