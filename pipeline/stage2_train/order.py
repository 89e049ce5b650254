"""The order of rows under `group_by_length`, from the seed and the epoch alone."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler


class SameOrder(TrainerCallback):  # type: ignore[misc]
    """Callback of one trainer. Without it a training that is stopped after its first epoch goes on
    with other rows: transformers draws each epoch's order from torch's global stream, which stands
    elsewhere after a restart.
    """

    def __init__(self, trainer: Any) -> None:
        self._generator = torch.Generator()
        drawn = trainer._get_train_sampler

        def sampler(dataset: Any = None) -> Any:
            found = drawn(dataset)
            if isinstance(found, LengthGroupedSampler):
                found.generator = self._generator
            return found

        trainer._get_train_sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epoch = int((state.epoch or 0) + 1e-6)
        self._generator.manual_seed(args.seed + epoch)
