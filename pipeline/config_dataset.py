"""The part of a config that says what the dataset is made of: shards, mixture, controls."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config_models import Strict

Control = Literal["random", "label_only", "gold"]
Order = Literal["as_is", "shuffled", "short_to_long", "easy_to_hard"]


class DatasetFiles(Strict):
    shard_megabytes: float = Field(256.0, gt=0)  # of rows as JSON; Parquet is smaller


class KShot(Strict):
    """A share of the training rows that are shown after k others of their task."""

    share: float = Field(0.2, gt=0, le=1)
    k: tuple[int, int] = (1, 4)  # the fewest and the most

    @model_validator(mode="before")
    @classmethod
    def _a_range(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("k"), list):
            k = value["k"]
            if len(k) != 2 or not all(type(i) is int for i in k) or not 1 <= k[0] <= k[1]:
                raise ValueError(f"k is [fewest, most], whole numbers from 1; seen: {k!r}")
            value = value | {"k": tuple(k)}
        return value


class Mixture(Strict):
    """How much of each task (or recipe) is trained on, in which order, in which form."""

    tokens: int | None = Field(None, ge=1)  # of the training rows, in the student's tokens
    weights: dict[str, float] = Field({})  # shares of the tokens, by task or recipe
    order: Order = "as_is"
    k_shot: KShot | None = None

    @model_validator(mode="after")
    def _shares(self) -> Mixture:
        wrong = {name: w for name, w in self.weights.items() if not 0 <= w < float("inf")}
        if wrong or (self.weights and not sum(self.weights.values()) > 0):
            raise ValueError(
                f"weights are numbers from 0, not all 0; seen: {wrong or self.weights}"
            )
        return self
