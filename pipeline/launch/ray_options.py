"""What the config says of Ray, checked before it starts; and what a command gets from it."""

from __future__ import annotations

import socket
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.launch.plan import TRAIN_END_SECONDS, served_for
from pipeline.launch.ray_task import run_command

CONNECT_SECONDS = 10.0
PARTS = ("options", "generate", "curate", "train", "evaluate", "report", "serve")
END_SECONDS = 20.0  # that a command gets to store what it has, when it is told to stop
MORE_SECONDS = 10.0  # beside the grace for what is in flight; and for a worker to say its end


def check_options(ray: Any, config: Config) -> None:
    """Raises `UserError` for an option that Ray's tasks do not take. Needs no Ray at work."""
    task = ray.remote(run_command)
    for part in PARTS:
        for key, value in getattr(config.execution.ray, part).items():
            place = f"execution.ray.{part}.{key}: {value!r}"
            try:
                task.options(**{key: value})
            except (ValueError, TypeError) as error:
                raise UserError(f"{place}: Ray says: {error}") from None
            # Ray looks at this one only when the task is handed over.
            if key in ("num_cpus", "num_gpus") and value is not None and value > 1 and value % 1:
                raise UserError(f"{place}: above 1 it has to be a whole number")


def check_address(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():  # else a word of Ray's, as "auto"
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(
                f"execution.ray.address: {address}: nothing answers there ({error}); start the "
                "cluster (`ray start --head`), or leave the address out for a Ray on this machine"
            ) from None


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
