"""Arms whose model servers of ours answer for: what holds when these have ended."""

from __future__ import annotations

from pipeline.config import Config, ModelConfig
from pipeline.launch.units import Unit, UnitState, read_status, status_folder
from pipeline.stage3_evaluate.arms import arm_model

LOCAL = ("transformers", "vllm")  # backends whose weights can be opened here


def asked_of_servers(config: Config, arm: str) -> bool:
    """Has `evaluate --arm` asked all that servers of ours answer for it? They may be gone since."""
    if arm_model(config, arm).serving.serve is None:
        return False
    from pipeline.flow import all_steps  # which imports this
    from pipeline.launch.part import identity_of_parts, parts_of

    status = read_status(status_folder(config.run_dir) / Unit("evaluate", arm=arm).file_name)
    if status is None or status.state is not UnitState.DONE:
        return False
    return status.identity == identity_of_parts(parts_of(all_steps(config), "evaluate"))


def ask_servers_again(config: Config) -> None:
    """Forget that they were asked: what failed for good may work now."""
    for arm in config.evaluate.all_arms:
        if arm_model(config, arm).serving.serve is not None:
            file = status_folder(config.run_dir) / Unit("evaluate", arm=arm).file_name
            file.unlink(missing_ok=True)


def after_servers(config: Config, arm: str) -> ModelConfig:
    """The arm's model, in an engine of its own where its servers have been asked: GPUs are free.

    By identity it is the same model.
    """
    chosen = arm_model(config, arm)
    if chosen.backend not in LOCAL or not asked_of_servers(config, arm):
        return chosen
    serving = chosen.serving.model_copy(update={"serve": None})
    return chosen.model_copy(update={"serving": serving})
