"""What a training says while it runs, and when it must stop.

Plain lines with loss, tokens per second, model FLOP utilisation (MFU), memory and the time left;
the same numbers go to TensorBoard, to what else `report_to` names, and to training_log.jsonl.
"""

from __future__ import annotations

import math
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from tqdm import tqdm
from transformers import TrainerCallback

from pipeline import stopping
from pipeline.stage2_train.flops import Peak, training_flops_per_token
from pipeline.stage2_train.ranks import any_rank, rank


class Speed(msgspec.Struct, frozen=True):
    """Of a whole stage. `utilisation`: tokens times operations, over the machine's peak."""

    tokens: int
    seconds: float
    utilisation: float
    peak: str
    memory_gb: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Watch(TrainerCallback):  # type: ignore[misc]
    """Callback of one trainer.

    `diverged` says why training must not go on, once it must not; `stopped`, that a process of this
    training was told to stop, which all of them then do at a checkpoint.
    """

    def __init__(
        self, name: str, model: Any, mean_tokens: float, peak: Peak, counted: Callable[[], int]
    ) -> None:
        """`counted`: the tokens that the trainer has seen since this process began."""
        self.diverged = ""
        self.stopped = False
        self._name = name
        self._counted = counted
        self._flops = training_flops_per_token(model, mean_tokens)
        self._peak = peak
        self._begin = self._last = time.monotonic()
        self._first_step = 0
        self._tokens = 0  # of this process
        self._before = 0  # of those before it, which were stopped

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begin = self._last = time.monotonic()
        self._first_step = state.global_step
        if state.global_step:
            self._before = state.num_input_tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs:
            return
        if "eval_loss" in logs:
            self._say(f"validation loss {float(logs['eval_loss']):.4f}")
        if "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.diverged = f"the loss is {loss} at step {state.global_step}"
            control.should_training_stop = True
        logs |= (more := self._rates(logs))
        if state.log_history:  # the trainer has already copied what it logs
            state.log_history[-1] |= more
        parts = [f"step {state.global_step}/{state.max_steps}", f"loss {loss:.4f}"]
        if "rewards/margins" in logs:
            ahead = logs["rewards/accuracies"]
            parts.append(f"margin {logs['rewards/margins']:.2f}, chosen ahead in {ahead:.0%}")
        if "tokens_per_second" in more:
            parts.append(f"{more['tokens_per_second']:,.0f} tokens/s")
            parts.append(f"MFU {more['mfu']:.1%}")
        parts += [f"{more['memory_gb']:.1f} GB", f"{self._left(state)} left"]
        self._say(", ".join(parts))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Into the file that makes a checkpoint whole: a kill must not part them.
        if args.include_num_input_tokens_seen == "no":  # else the trainer counts there
            state.num_input_tokens_seen = self._before + self._counted()
        if any_rank(stopping.requested(), args.device):
            self.stopped = True
            control.should_training_stop = True
            control.should_save = control.should_log = not self.diverged

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopped:  # no validation of a part of an epoch, and no second checkpoint
            control.should_evaluate = control.should_save = control.should_log = False

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        # A checkpoint with broken weights must not be the one that training goes on from.
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        whole = all(bool(torch.isfinite(p).all()) for p in model.parameters())
        if any_rank(not whole, args.device):
            self.diverged = f"weights are no numbers at step {state.global_step}"
            control.should_training_stop = True
            if rank() == 0:
                shutil.rmtree(checkpoint, ignore_errors=True)

    def speed(self) -> Speed:
        """So far, since this process began to train; saving and validation included."""
        seconds = self._last - self._begin
        used = self._tokens * self._flops / seconds / self._peak.flops if seconds else 0.0
        return Speed(self._tokens, seconds, used, self._peak.source, memory_gb())

    def _rates(self, logs: dict[str, Any]) -> dict[str, float]:
        now, tokens = time.monotonic(), int(logs.get("num_tokens", 0))
        new, seconds = tokens - self._tokens, now - self._last
        self._last, self._tokens = now, tokens
        found = {"memory_gb": round(memory_gb(), 2)}
        if new > 0 and seconds > 0:
            found["num_tokens"] = tokens + self._before  # TRL begins anew with each process
            rate = new / seconds
            found["tokens_per_second"] = round(rate, 1)
            found["mfu"] = round(rate * self._flops / self._peak.flops, 4)
        return found

    def _left(self, state: Any) -> str:
        done = state.global_step - self._first_step
        seconds = (time.monotonic() - self._begin) / max(1, done)
        return str(tqdm.format_interval(seconds * (state.max_steps - state.global_step)))

    def _say(self, text: str) -> None:
        if rank() == 0:
            print(f"{self._name}: {text}", flush=True)


def memory_gb() -> float:
    """The most that was taken so far: of the accelerator's memory, or of this process's."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
