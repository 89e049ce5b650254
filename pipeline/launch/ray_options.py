"""What a command gets on Ray: cores and GPUs to begin with, and time to end."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.launch.plan import TRAIN_END_SECONDS, served_for

END_SECONDS = 20.0  # that a command gets to store what it has, when it is told to stop
MORE_SECONDS = 10.0  # beside the grace for what is in flight; and for a worker to say its end


def task_options(config: Config, resources: str, arm: str = "") -> dict[str, Any]:
    """Ray's options of a task. What only waits for a server takes nothing that a server needs."""
    wanted = config.execution.ray
    own = getattr(wanted, resources)
    if resources == "serve":
        # Servers begin first: with a core each, the commands that ask them might find none.
        return {**wanted.options, "num_cpus": 0, **own}
    found = {**wanted.options, **own}
    if arm == "teacher" and served_for(config, "evaluate") and not _opens_weights(config):
        found.pop("num_gpus", None)
    return found


def _opens_weights(config: Config) -> bool:
    """May the teacher's arm need its weights in process, beside its servers?"""
    evaluate = config.evaluate
    local = config.teacher_of(evaluate.teacher).backend == "vllm"
    return local and bool(evaluate.held_out_text or evaluate.suite)


def end_seconds(config: Config, command: str) -> float:
    """From being told to stop to being killed."""
    if command == "train":
        return TRAIN_END_SECONDS
    return max(END_SECONDS, config.execution.grace_seconds + MORE_SECONDS)
