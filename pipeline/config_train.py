"""The part of a config that says how the student is trained."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from pipeline.config_dataset import Control
from pipeline.config_models import SamplingDict, Strict


class SoftTargets(Strict):
    """The teacher's top-k probabilities as targets (pipeline/stage2_train/soft_loss.py)."""

    weight: float = Field(0.5, ge=0, le=1)  # lambda: 0 is plain SFT, 1 the teacher's alone
    # With topk_tail the teacher's log-probabilities have to be taken at it
    # (`sampling: {logprobs_temperature: ...}`); topk_renormalised makes do with those at 1.
    temperature: float = Field(1.0, gt=0)
    support: Literal["topk_tail", "topk_renormalised"] = "topk_tail"
    top_k: int = Field(20, ge=1)
    min_coverage: float = Field(0.9, ge=0, le=1)  # of the tokens; below it the run is refused

    @property
    def taken_at(self) -> float:
        """The temperature at which log-probabilities have to be taken."""
        return self.temperature if self.support == "topk_tail" else 1.0


class Stage(Strict):
    """One stage of a curriculum: some rows of the dataset, with settings over `train.sft`."""

    # A column of numbers (characters, temperature, ...), or `difficulty`: 1 - pass_rate (or
    # agreement). Rows are ordered by it, and `share` is the part of that order that is taken.
    by: str | None = None
    share: tuple[float, float] = (0.0, 1.0)
    tasks: list[str] | None = None  # of these tasks only
    dataset: str | None = None  # another folder of Parquet files instead of 3_dataset
    sft: dict[str, Any] = {}  # any field of TRL's SFTConfig

    @model_validator(mode="before")
    @classmethod
    def _a_range(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("share"), list):
            share = value["share"]
            numbers = all(type(x) in (int, float) for x in share)
            if len(share) != 2 or not numbers or not 0 <= share[0] < share[1] <= 1:
                raise ValueError(f"share is [from, to], as [0, 0.5]; seen: {share!r}")
            value = value | {"share": (float(share[0]), float(share[1]))}
        return value

    @model_validator(mode="after")
    def _share_of_an_order(self) -> Stage:
        if self.share != (0.0, 1.0) and self.by is None:
            raise ValueError("share needs `by`, the column whose order it is a share of")
        return self


class EarlyStopping(Strict):
    """Stop when the validation loss no longer falls; needs validation rows."""

    patience: int = Field(2, ge=1)  # evaluations without a better one
    threshold: float = Field(0.0, ge=0)  # what counts as better


class Preference(Strict):
    """Pairs for TRL's DPOTrainer: the teacher's answer over the student's own (2604.03873)."""

    dpo: dict[str, Any] = {}  # any field of TRL's DPOConfig
    after: Literal["sft", "nothing"] = "sft"  # nothing: instead of SFT
    # Of the student's answers: unless said, temperature 1 and the max_tokens of a row's task.
    sampling: SamplingDict = {}
    # What the student's answer must be to stand as rejected. `wrong`: not right by the task's own
    # verifier, where it has one.
    rejected: Literal["any", "wrong"] = "wrong"


class Train(Strict):
    sft: dict[str, Any] = {}  # any field of TRL's SFTConfig
    lora: dict[str, Any] | None = None  # any field of peft's LoraConfig
    soft_targets: SoftTargets | None = None
    stages: list[Stage] = []  # a curriculum; none: one stage with all rows
    early_stopping: EarlyStopping | None = None  # of SFT
    preference: Preference | None = None

    @model_validator(mode="after")
    def _sft_is_there(self) -> Train:
        if self.preference is None or self.preference.after == "sft":
            return self
        for key in ("soft_targets", "stages", "early_stopping"):
            if getattr(self, key):
                raise ValueError(
                    f"{key} belongs to SFT, which `preference: {{after: nothing}}` leaves out; "
                    f"take out {key}, or set after: sft"
                )
        return self


class Variant(NamedTuple):
    """Which of a run's students: the one it is about, or one to compare it with."""

    control: Control | None = None  # trained on 3_controls/NAME
    seed: int | None = None  # trained on the same rows with another seed
    only: str | None = None  # trained on the rows of this task alone

    @property
    def flag(self) -> str:
        """What `distill train` is told to train it."""
        if self.control is not None:
            return f" --control {self.control}"
        if self.only is not None:
            return f" --only {self.only}"
        return "" if self.seed is None else f" --seed {self.seed}"


MAIN = Variant()
