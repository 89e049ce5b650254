"""Out of memory: half the batch and twice the accumulation, once; each step stays the same.

What was found is kept in the stage's folder, so that a training that is stopped goes on with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import RunFatal

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC")
_FILE = "smaller_batch.txt"


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def shrink(folder: Path, arguments: Any, place: str, error: BaseException) -> None:
    """Note that this stage trains with smaller batches; `RunFatal` where that is no way out.

    `place`: of the trainer's settings in the config, for messages.
    """
    batch, parts = arguments.per_device_train_batch_size, _parts(arguments)
    marker = folder / _FILE
    if marker.exists() or parts == 1:
        tried = "half the batch did not fit either" if marker.exists() else "the batch is one row"
        raise RunFatal(
            f"training ran out of memory, and {tried} (batch {batch}). Lower {place}.max_length, "
            f"set {place}.gradient_checkpointing to true, or train an adapter (train.lora: {{r: "
            f"16}}}}); then type the command again. The last message was: {error}"
        ) from error
    marker.write_text(f"{batch // parts} {arguments.gradient_accumulation_steps * parts}\n")
    print(
        f"training: out of memory at {batch} rows a batch; going on with {batch // parts} and "
        f"{arguments.gradient_accumulation_steps * parts} batches a step, which is the same step. "
        f"To keep it: {place}.per_device_train_batch_size and gradient_accumulation_steps",
        flush=True,
    )


def apply_smaller_batch(folder: Path, arguments: Any) -> None:
    """Set what `shrink` has noted, if it has."""
    marker = folder / _FILE
    if marker.exists():
        batch, accumulation = map(int, marker.read_text().split())
        arguments.per_device_train_batch_size = batch
        arguments.gradient_accumulation_steps = accumulation


def _parts(arguments: Any) -> int:
    """In how many parts a batch is cut: 2, or what an odd one can be divided by."""
    batch = arguments.per_device_train_batch_size
    return next((n for n in range(2, batch + 1) if batch % n == 0), 1)
