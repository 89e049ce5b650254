"""Which model each arm is, and where the students are that a run trains."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config, ModelConfig
from pipeline.config_evaluate import CONTROL, ONLY, SEED, Arm
from pipeline.models import model_identity, student_model


def arm_model(config: Config, arm: Arm) -> ModelConfig:
    """Which model an arm is."""
    if arm == "teacher":
        return config.teacher_of(config.evaluate.teacher)
    if arm in config.evaluate.models:
        return config.evaluate.models[arm]
    folder = trained_folder(config, arm)
    if folder is None:
        return student_model(config)
    student = config.student
    return ModelConfig(backend=student.backend, model=str(folder), serving=student.serving)


def trained_folder(config: Config, arm: Arm) -> Path | None:
    """Where the student of an arm is that this run trains; None for the other arms."""
    if arm == "after":
        return config.run_dir / "4_student"
    if arm.startswith(CONTROL):
        return config.run_dir / "4_controls" / arm.removeprefix(CONTROL)
    if arm.startswith(SEED):
        return config.run_dir / "4_seeds" / arm.removeprefix(SEED)
    if arm.startswith(ONLY):
        return config.run_dir / "4_only" / arm.removeprefix(ONLY)
    return None


def identities(config: Config) -> dict[Arm, str]:
    """Of the arms that this run does not train; the others are folders with identities."""
    arms = [arm for arm in config.evaluate.all_arms if trained_folder(config, arm) is None]
    return {arm: model_identity(arm_model(config, arm)) for arm in arms}
